"""Rules for sums, products and functions of one element."""

from __future__ import annotations

import math

import numpy as np
import torch
from tvm import ir, relax

from ...ops.registry import meaning_of
from ..quantize.operators import SCALAR_UNARY, UNARY
from ..rewrite import as_array, constant, operator_of, variables
from .accumulate import product
from .context import Codes, Context, Target, encode

#: Multipliers of an addition are int16; more shift than this would overflow the int32 sum.
LARGEST_MULTIPLIER = 2**15 - 1
LARGEST_SHIFT = 21


def addition(context: Context, value: relax.Expr, target: Target) -> relax.Expr | None:
    """Sum or difference of two int8 tensors, with a clamp → ``fewbits.add``."""
    inner, target = context.clamp(value, target)
    call = context.call(inner, "relax.add", "relax.subtract")
    if call is None:
        return None
    a, b = context.codes(call.args[0]), context.codes(call.args[1])
    if a is None or b is None:
        return None
    sign = 1 if operator_of(call) == "relax.add" else -1
    factors = (a.scale / target.scale, sign * b.scale / target.scale)
    shift = min(LARGEST_SHIFT, math.floor(math.log2(LARGEST_MULTIPLIER / max(map(abs, factors)))))
    if shift < 0:
        return None
    first, second = (round(math.ldexp(factor, shift)) for factor in factors)
    rounding = math.ldexp(target.zero_point + 0.5, shift)
    bias = round(rounding) - first * a.zero_point - second * b.zero_point
    return context.emit(
        "fewbits.add",
        [a.expression, b.expression],
        context.name(inner),
        target,
        a_multiplier=first,
        b_multiplier=second,
        bias=bias,
        shift=shift,
        minimum=target.minimum,
        maximum=target.maximum,
    )


def multiplication(context: Context, value: relax.Expr, target: Target) -> relax.Expr | None:
    """Product of two int8 tensors, with a clamp → ``fewbits.multiply``."""
    inner, target = context.clamp(value, target)
    call = context.call(inner, "relax.multiply")
    if call is None:
        return None
    a, b = context.codes(call.args[0]), context.codes(call.args[1])
    if a is None or b is None:
        return None
    return product(context, "fewbits.multiply", a, b, context.name(inner), target, 1)


#: Reciprocals beyond this many output steps saturate whatever is divided.
_LARGEST_QUOTIENT = 256
_QUOTIENT_SHIFT = 14


def quotient(context: Context, value: relax.Expr, target: Target) -> relax.Expr | None:
    """Quotient of two int8 tensors, with a clamp → ``fewbits.divide``."""
    inner, target = context.clamp(value, target)
    call = context.call(inner, "relax.divide")
    if call is None:
        return None
    a, b = context.codes(call.args[0]), context.codes(call.args[1])
    if a is None or b is None:
        return None
    divisor = (np.arange(-128, 128, dtype=np.float64) - b.zero_point) * b.scale
    steps = np.full(256, np.inf)  # a division by zero saturates
    np.divide(a.scale / target.scale, divisor, out=steps, where=divisor != 0)
    steps = np.clip(steps, -_LARGEST_QUOTIENT, _LARGEST_QUOTIENT)
    return context.emit(
        "fewbits.divide",
        [
            a.expression,
            b.expression,
            constant(np.rint(np.ldexp(steps, _QUOTIENT_SHIFT)).astype(np.int32)),
        ],
        context.name(inner),
        target,
        a_zero=a.zero_point,
        bias=round(math.ldexp(target.zero_point + 0.5, _QUOTIENT_SHIFT)),
        shift=_QUOTIENT_SHIFT,
        minimum=target.minimum,
        maximum=target.maximum,
    )


def larger_or_smaller(context: Context, value: relax.Expr, target: Target) -> relax.Expr | None:
    """Maximum or minimum of two tensors: of their codes, once they mean the same."""
    inner, target = context.clamp(value, target)
    call = context.call(inner, "relax.maximum", "relax.minimum")
    if call is None:
        return None
    name = context.name(inner)
    operands: list[relax.Expr] = []
    for index, argument in enumerate(call.args):
        known, codes = context.constant(argument), context.codes(argument)
        if known is not None:
            operands.append(constant(encode(known, target)))
        elif codes is not None:
            operands.append(context.rescale(codes, target, f"{name}:{index}"))
        else:
            return None
    return context.rewriter.emit(relax.Call(call.op, operands), name)


def function_of_one(context: Context, value: relax.Expr, target: Target) -> relax.Expr | None:
    """Any elementwise function of a single int8 tensor → ``fewbits.lookup``.

    The function may be a whole graph (x * clip(x + 3, 0, 6) / 6) as long as everything in it
    depends on that one tensor and on scalars.
    """
    if not isinstance(value, relax.Var):
        return None
    if (codes := context.codes(value)) is not None:
        return context.rescale(codes, target, f"{context.name(value)}:rescaled")
    region = _region(context, value)
    if region is None:
        return None
    steps, source, codes = region
    grid = torch.arange(-128, 128, dtype=torch.float64)
    values: dict[relax.Var, torch.Tensor] = {source: (grid - codes.zero_point) * codes.scale}
    for var, call in steps:
        arguments = [_operand(argument, values) for argument in call.args]
        values[var] = meaning_of(operator_of(call) or "", var.name)(call, *arguments)
    table = encode(values[value].numpy(), target)
    return context.lookup(codes.expression, table, context.name(value), target)


def _operand(argument: relax.Expr, values: dict[relax.Var, torch.Tensor]) -> object:
    if isinstance(argument, relax.Var):
        return values[argument]
    if isinstance(argument, ir.GenericConst):
        return torch.from_numpy(as_array(argument).astype(np.float64).ravel()[:1])
    return float(argument.value)


def _region(
    context: Context, value: relax.Var
) -> tuple[list[tuple[relax.Var, relax.Call]], relax.Var, Codes] | None:
    """The elementwise calls between one int8 tensor and `value`, in order; None if there are more
    sources, other operators, or constants that are not scalars."""
    steps: dict[relax.Var, relax.Call] = {}
    sources: dict[relax.Var, Codes] = {}

    def visit(var: relax.Var) -> bool:
        if var in steps or var in sources:
            return True
        codes = context.codes(var)
        if codes is not None:
            sources[var] = codes
            return len(sources) == 1 and codes.shape == tuple(int(d) for d in value.ty.shape.values)
        call = context.call(var, *UNARY, *SCALAR_UNARY)
        if call is None or var not in context.rewriter.values:
            return False
        for argument in call.args:
            if isinstance(argument, ir.GenericConst) and math.prod(argument.value.shape) != 1:
                return False
        if not all(visit(v) for v in variables(call)):
            return False
        steps[var] = call
        return True

    if not visit(value) or len(sources) != 1:
        return None
    source, codes = next(iter(sources.items()))
    return list(steps.items()), source, codes
