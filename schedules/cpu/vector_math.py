"""Exponential, error function, hyperbolic tangent and logistic function as arithmetic.

A call of libm's ``expf`` in an inner loop keeps the loop scalar and costs tens of cycles an
element. These are polynomials and quotients of polynomials of float32 arithmetic alone, so any loop
around them vectorizes. The coefficients are minimax fits made for this file (iteratively reweighted
least squares in float64); the errors stated are the largest found over all of the function's range
against float64, and tests hold them.

Arguments are float32 expressions, scalars or vectors.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import tvm_ffi
from tvm import ir, tirx
from tvm.ir import prim

#: exp(r) = 1 + r + r² · (Σ c_i · r^i) on |r| <= ln(2) / 2; fitted to 3e-9.
_EXP = (0.499999934516285, 0.16666520688948316, 0.04166838737653014,
        0.008368709906450543, 0.0013814612566254592)  # fmt: skip
#: ln(2) in two parts: the first has so few bits that its product with an exponent is exact.
_LN2_HIGH, _LN2_LOW = 0.693359375, -0.00021219444005471377
#: erf(x) = x · P(x²) / Q(x²) on |x| <= 3.925, where it reaches 1 in float32; fitted to 2e-8.
_ERF_LIMIT = 3.925
_ERF_P = (1.1283791458288812, 0.1905916943414469, 0.052769023726586255, 0.0037724603213532383,
          0.00028484134772165267, 2.0460417842514556e-06)  # fmt: skip
_ERF_Q = (1.0, 0.5022402224110479, 0.1141818676317579, 0.014983019362971568,
          0.0011638356137624688, 3.804780780870713e-05)  # fmt: skip
#: tanh(x) = x · P(x²) / Q(x²) on |x| <= 9.02, where it reaches 1 in float32; fitted to 2e-9.
_TANH_LIMIT = 9.02
_TANH_P = (0.9999999986963719, 0.1367991488404387, 0.0038683275073152735, 2.800745396475262e-05,
           3.058501073566785e-08, -1.2203457718008715e-11)  # fmt: skip
_TANH_Q = (1.0, 0.47013246946186443, 0.027245837945493696, 0.00039386306890917464,
           1.2873662559812367e-06)  # fmt: skip


def exp(x: Any) -> Any:
    """e^x of a float32 expression, relative error at most 2e-7 (1e-45 below the normal numbers).

    Infinities and NaN give what IEEE 754 says; results below the normal range are subnormal.
    """
    # The bounds are where results round to 0 and overflow. A comparison with NaN is false.
    return _let(x, lambda v: _let(_bounded(v, -104.0, 89.0), _exp_bounded))


def exp_below_zero(x: Any) -> Any:
    """e^x of a float32 expression that is at most 0, as `exp`; 0 below -87."""
    return _let(x, lambda v: _let(v * spread(1 / math.log(2), v), lambda n: _small_power(v, n)))


def _small_power(x: Any, quotient: Any) -> Any:
    def scaled(n: Any) -> Any:
        def power(r: Any) -> Any:
            value = spread(1.0, x) + (r + r * r * _horner(_EXP, r))
            power_of_two = _power_of_two(tirx.Cast(_like("int32", x), n))
            return _select(x < spread(-87.0, x), spread(0.0, x), value * power_of_two)

        return _let(x - n * spread(_LN2_HIGH, x) - n * spread(_LN2_LOW, x), power)

    return _let(tirx.nearbyint(quotient), scaled)


def _bounded(x: Any, low: float, high: float) -> Any:
    least, most = spread(low, x), spread(high, x)
    return _select(x < least, least, _select(x > most, most, x))


def _exp_bounded(x: Any) -> Any:
    def scaled(n: Any) -> Any:
        def power(r: Any) -> Any:
            value = spread(1.0, x) + (r + r * r * _horner(_EXP, r))
            whole = tirx.Cast(_like("int32", x), n)
            half = tirx.shift_right(whole, _broadcast(tirx.const(1, "int32"), x))
            # Two factors, since 2^128 and 2^-150 are no float32 numbers.
            return value * _power_of_two(half) * _power_of_two(whole - half)

        return _let(x - n * spread(_LN2_HIGH, x) - n * spread(_LN2_LOW, x), power)

    return _let(tirx.nearbyint(x * spread(1 / math.log(2), x)), scaled)


def _power_of_two(n: Any) -> Any:
    bias, places = (_broadcast(tirx.const(number, "int32"), n) for number in (127, 23))
    return tirx.reinterpret(_like("float32", n), tirx.shift_left(n + bias, places))


def erf(x: Any) -> Any:
    """The error function of a float32 expression, error at most 4e-7."""
    return _odd_quotient(x, _ERF_LIMIT, _ERF_P, _ERF_Q)


def tanh(x: Any) -> Any:
    """The hyperbolic tangent of a float32 expression, error at most 4e-7."""
    return _odd_quotient(x, _TANH_LIMIT, _TANH_P, _TANH_Q)


def sigmoid(x: Any) -> Any:
    """1 / (1 + e^-x) of a float32 expression, relative error at most 4e-7; 0 instead of 3e-39."""
    one = spread(1.0, x)
    return one / (one + exp(spread(0.0, x) - x))


def _odd_quotient(x: Any, limit: float, p: Sequence[float], q: Sequence[float]) -> Any:
    def quotient(v: Any) -> Any:
        return _let(v * v, lambda t: v * _horner(p, t) / _horner(q, t))

    return _let(x, lambda v: _let(_bounded(v, -limit, limit), quotient))


def _horner(coefficients: Sequence[float], x: Any) -> Any:
    value = spread(coefficients[-1], x)
    for coefficient in coefficients[-2::-1]:
        value = value * x + spread(coefficient, x)
    return value


def spread(value: float, like: Any) -> Any:
    """A constant in as many lanes as an expression has."""
    return _broadcast(tirx.const(value, "float32"), like)


def _broadcast(scalar: Any, like: Any) -> Any:
    lanes = _lanes(like)
    return scalar if lanes == 1 else tirx.Broadcast(scalar, lanes)


def _like(dtype: str, like: Any) -> str:
    lanes = _lanes(like)
    return dtype if lanes == 1 else f"{dtype}x{lanes}"


def _lanes(expression: Any) -> int:
    _, _, lanes = prim_dtype(expression).partition("x")
    return int(lanes or 1)


def _select(condition: Any, true: Any, false: Any) -> Any:
    return tirx.Select(condition, true, false)


def _let(value: Any, body: Callable[[Any], Any]) -> Any:
    variable = tirx.Var("v", prim_dtype(value))
    return tirx.Let(variable, value, body(variable))


_FUNCTIONS: dict[str, Callable[[Any], Any]] = {
    "exp": exp,
    "erf": erf,
    "tanh": tanh,
    "sigmoid": sigmoid,
}


def expand(node: Any) -> Any:
    """The statement or expression with every float32 call of these functions as arithmetic."""
    return tvm_ffi.structural_map(node, [(ir.Call, _expand_call)])


def _expand_call(call: ir.Call) -> Any:
    name = str(getattr(call.op, "name", "")).split(".")[-1]
    function = _FUNCTIONS.get(name)
    if function is None or str(prim_dtype(call)) != "float32":
        return call
    return function(call.args[0])


def prim_dtype(expression: Any) -> str:
    """The element type of a TIR expression, e.g. ``float32``."""
    return str(expression.ty.dtype)


__all__ = [
    "erf", "exp", "exp_below_zero", "expand", "prim", "prim_dtype", "sigmoid", "spread", "tanh",
]  # fmt: skip
