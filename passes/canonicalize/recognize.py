"""Recognize functions that exporters spell out: layer and RMS normalization, GELU, SiLU.

The named operator is one layer to quantize, to schedule and to read about in a report.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any, ClassVar

import numpy as np
from tvm import ir, relax

from ...ops.meanings.common import ints
from ..base import Pass, PassContext, register_pass
from ..rewrite import constant, operator_of
from .graph import (
    Graph,
    array_of,
    dtype_of,
    is_number,
    op,
    rewrite,
    same_shape,
    scalar_of,
    shape_of,
)


@register_pass
@dataclasses.dataclass(frozen=True)
class Recognize(Pass):
    """Replace spelled-out functions by the operator of that name."""

    name: ClassVar[str] = "recognize"

    def apply(self, module: ir.IRModule, context: PassContext) -> ir.IRModule:
        """The module with named functions; the same object if none was found."""
        return rewrite(module, _RULES)


def _close(value: float | None, expected: float) -> bool:
    return value is not None and math.isclose(value, expected, rel_tol=1e-3)


# -- products as a constant times factors --


def _factors(graph: Graph, expression: Any) -> tuple[float, list[Any]]:
    """A product as its constant part and its other factors, however it is nested."""
    value = scalar_of(expression)
    if value is not None:
        return value, []
    call = graph.call(expression, "relax.multiply")
    if call is not None:
        left, right = _factors(graph, call.args[0]), _factors(graph, call.args[1])
        return left[0] * right[0], left[1] + right[1]
    call = graph.call(expression, "relax.divide")
    if call is not None:
        divisor = scalar_of(call.args[1])
        if divisor:
            scale, factors = _factors(graph, call.args[0])
            return scale / divisor, factors
    return 1.0, [expression]


def _one_plus(graph: Graph, expression: Any, inner: str) -> Any:
    """x of ``inner(x) + 1`` or ``1 + inner(x)``, else None."""
    call = graph.call(expression, "relax.add")
    if call is None:
        return None
    for term, other in (call.args, reversed(call.args)):
        if scalar_of(other) == 1:
            function = graph.call(term, inner)
            if function is not None:
                return function.args[0]
    return None


def _gelu(graph: Graph, var: Any, call: Any) -> relax.Expr | None:
    """``0.5 x (1 + erf(x / sqrt 2))`` or ``0.5 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3)))``."""
    scale, factors = _product(graph, call)
    if not _close(scale, 0.5) or len(factors) != 2:
        return None
    for x, gate in (factors, reversed(factors)):
        if not same_shape(x, var):
            continue
        inside = _one_plus(graph, gate, "relax.erf")
        if inside is not None:
            by, of = _factors(graph, inside)
            if _close(by, math.sqrt(0.5)) and len(of) == 1 and of[0] == x:
                return op.nn.gelu(x)
        inside = _one_plus(graph, gate, "relax.tanh")
        if inside is not None and _is_tanh_argument(graph, inside, x):
            return op.nn.gelu_tanh(x)
    return None


def _product(graph: Graph, call: Any) -> tuple[float, list[Any]]:
    """`_factors` of a call that is a multiplication or division itself."""
    scale, factors = _factors(graph, call.args[0])
    if operator_of(call) == "relax.divide":
        divisor = scalar_of(call.args[1])
        return (scale / divisor, factors) if divisor else (0.0, [])
    other_scale, other = _factors(graph, call.args[1])
    return scale * other_scale, factors + other


def _is_tanh_argument(graph: Graph, expression: Any, x: Any) -> bool:
    by, of = _factors(graph, expression)
    if len(of) == 2 and of[0] != of[1]:
        # sqrt(2/pi) x (1 + 0.044715 x^2)
        rest = [factor for factor in of if factor != x]
        call = graph.call(rest[0], "relax.add") if len(rest) == 1 else None
        if call is None or not _close(by, math.sqrt(2 / math.pi)):
            return False
        return any(
            scalar_of(other) == 1 and _is_power(graph, term, x, 2)
            for term, other in (call.args, reversed(call.args))
        )
    call = graph.call(of[0], "relax.add") if len(of) == 1 else None
    if call is None or not _close(by, math.sqrt(2 / math.pi)):
        return False
    return any(
        term == x and _is_power(graph, other, x, 3)
        for term, other in (call.args, reversed(call.args))
    )


def _is_power(graph: Graph, expression: Any, x: Any, exponent: int) -> bool:
    """Whether an expression is ``0.044715 x^exponent``."""
    by, factors = _factors(graph, expression)
    total = 0
    for factor in factors:
        power = graph.call(factor, "relax.power")
        square = graph.call(factor, "relax.square")
        if factor == x:
            total += 1
        elif power is not None and power.args[0] == x:
            total += int(scalar_of(power.args[1]) or 0)
        elif square is not None and square.args[0] == x:
            total += 2
        else:
            return False
    return _close(by, 0.044715) and total == exponent


def _silu(graph: Graph, _var: Any, call: Any) -> relax.Expr | None:
    for x, gate in (call.args, reversed(call.args)):
        sigmoid = graph.call(gate, "relax.sigmoid")
        if sigmoid is not None and sigmoid.args[0] == x:
            return op.nn.silu(x)
    return None


# -- normalizations --


def _mean_of(graph: Graph, expression: Any) -> tuple[Any, tuple[int, ...]] | None:
    """The argument and the (kept, trailing) axes of a mean."""
    call = graph.call(expression, "relax.mean")
    if call is None or not call.attrs.keepdims or call.attrs.axis is None:
        return None
    rank = len(shape_of(call.args[0]))
    axes = tuple(sorted(axis % rank for axis in ints(call.attrs.axis)))
    return (call.args[0], axes) if axes == tuple(range(rank - len(axes), rank)) else None


def _squared(graph: Graph, expression: Any) -> Any:
    """x of x², else None."""
    call = graph.call(expression, "relax.multiply", "relax.power", "relax.square")
    if call is None:
        return None
    if operator_of(call) == "relax.power":
        return call.args[0] if scalar_of(call.args[1]) == 2 else None
    return call.args[0] if len(call.args) == 1 or call.args[0] == call.args[1] else None


def _over_root(graph: Graph, call: Any) -> tuple[Any, Any, float] | None:
    """(n, v, epsilon) of ``n / sqrt(v + epsilon)`` in any of its spellings."""
    if operator_of(call) == "relax.divide":
        root = graph.call(call.args[1], "relax.sqrt")
        pairs = [(call.args[0], root.args[0])] if root is not None else []
    else:
        pairs = []
        for numerator, inverse in (call.args, reversed(call.args)):
            root = graph.call(inverse, "relax.rsqrt")
            quotient = graph.call(inverse, "relax.divide")
            if quotient is not None and scalar_of(quotient.args[0]) == 1:
                root = graph.call(quotient.args[1], "relax.sqrt")
            power = graph.call(inverse, "relax.power")
            if power is not None and scalar_of(power.args[1]) == -0.5:
                root = power
            if root is not None:
                pairs.append((numerator, root.args[0]))
    for numerator, inside in pairs:
        total = graph.call(inside, "relax.add")
        if total is None:
            continue
        for variance, epsilon in (total.args, reversed(total.args)):
            value = scalar_of(epsilon)
            if value is not None and value >= 0:
                return numerator, variance, value
    return None


def _normalization(graph: Graph, var: Any, call: Any) -> relax.Expr | None:
    """``(x - mean x) / sqrt(var x + e)`` or ``x / sqrt(mean x² + e)``, without scale and shift."""
    found = _over_root(graph, call)
    if found is None:
        return None
    numerator, variance, epsilon = found
    mean = _mean_of(graph, variance)
    if mean is None or _squared(graph, mean[0]) != numerator:
        return None
    axes = mean[1]
    size, kind = [shape_of(var)[axis] for axis in axes], dtype_of(var)
    if not is_number(size):
        return None
    ones = constant(np.ones(size, kind))
    centered = graph.call(numerator, "relax.subtract")
    if centered is not None:
        x = centered.args[0]
        if _mean_of(graph, centered.args[1]) == (x, axes):
            zeros = constant(np.zeros(size, kind))
            return op.nn.layer_norm(x, ones, zeros, list(axes), epsilon)
    return op.nn.rms_norm(numerator, ones, list(axes), epsilon)


def _parameter(graph: Graph, other: Any, norm: Any) -> np.ndarray | None:
    """A constant that has the shape of a normalization's parameters, leading ones dropped."""
    array, size = array_of(other), shape_of(norm.args[1])
    if array is None or array.size not in (1, math.prod(size)):
        return None
    aligned = (1,) * (array.ndim - len(size)) + size
    if array.size > 1 and array.shape != aligned[-array.ndim :]:
        return None
    return np.broadcast_to(array.reshape(-1) if array.size == 1 else array.reshape(size), size)


def _scaled(graph: Graph, _var: Any, call: Any) -> relax.Expr | None:
    """A constant factor joins the normalization before it."""
    for value, other in (call.args, reversed(call.args)):
        norm = graph.call(value, "relax.nn.layer_norm", "relax.nn.rms_norm")
        if norm is None or not graph.used_once(value):
            continue
        factor = _parameter(graph, other, norm)
        parameters = [array_of(argument) for argument in norm.args[1:]]
        if factor is None or any(p is None for p in parameters):
            continue
        scaled = [constant(p * factor) for p in parameters if p is not None]
        return relax.Call(norm.op, [norm.args[0], *scaled], norm.attrs, norm.ty_args)
    return None


def _shifted(graph: Graph, _var: Any, call: Any) -> relax.Expr | None:
    """A constant addend joins the layer normalization before it."""
    for value, other in (call.args, reversed(call.args)):
        norm = graph.call(value, "relax.nn.layer_norm")
        if norm is None or not graph.used_once(value):
            continue
        addend, beta = _parameter(graph, other, norm), array_of(norm.args[2])
        if addend is not None and beta is not None:
            arguments = [norm.args[0], norm.args[1], constant(beta + addend)]
            return relax.Call(norm.op, arguments, norm.attrs, norm.ty_args)
    return None


_RULES = {
    "relax.multiply": (_gelu, _silu, _normalization, _scaled),
    "relax.divide": (_gelu, _normalization),
    "relax.add": (_shifted,),
}
