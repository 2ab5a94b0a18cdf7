"""The pass: tries the rules on every quantize of a QDQ module."""

from __future__ import annotations

from collections.abc import Callable

from tvm import ir, relax

from ..rewrite import operator_of
from .accumulate import convolution, dense, matmul
from .context import Context, Target, scalar_parameters
from .elementwise import (
    addition,
    function_of_one,
    larger_or_smaller,
    multiplication,
    quotient,
)
from .movement import concat, move, move_first, move_later, split
from .normalization import layer_norm, prelu
from .reduce import average_pool, extreme, max_pool, softmax
from .upsampling import bilinear, transposed_convolution

Rule = Callable[[Context, relax.Expr, Target], relax.Expr | None]

#: In order: fused forms before what they consist of.
RULES: tuple[Rule, ...] = (
    convolution,
    transposed_convolution,
    dense,
    matmul,
    function_of_one,
    addition,
    multiplication,
    quotient,
    larger_or_smaller,
    average_pool,
    max_pool,
    extreme,
    softmax,
    layer_norm,
    prelu,
    bilinear,
    move,
    split,
    concat,
    move_later,
)


def integer_only(module: ir.IRModule) -> ir.IRModule:
    """The module with integer operators wherever inputs and output are int8.

    What no rule covers keeps its dequantize, float operator and quantize.
    """
    context = Context(module)
    rewriter = context.rewriter
    for var, value in rewriter.bindings:
        replacement = None
        if operator_of(value) == "relax.quantize":
            assert isinstance(value, relax.Call)
            parameters = scalar_parameters(value)
            if parameters is not None and var.ty.dtype == "int8":
                real = value.args[0]
                name = real.name if isinstance(real, relax.Var) else ""
                replacement = _convert(context, real, Target(*parameters, stands_for=name))
        elif isinstance(value, relax.Call):
            replacement = move_first(context, var, value)
        if replacement is None:
            rewriter.keep(var, value)
        else:
            rewriter.replace(var, replacement)
    return rewriter.finish()


def _convert(context: Context, value: relax.Expr, target: Target) -> relax.Expr | None:
    for rule in RULES:
        replacement = rule(context, value, target)
        if replacement is not None:
            return replacement
    return None
