"""Sums, products, quotients and extremes: plain where bounds allow it, wrapping elsewhere."""

from __future__ import annotations

import math
from collections.abc import Callable

from tvm.ir import prim

from . import interval as iv
from .expressions import ExpressionPrinter, prints
from .interval import Interval
from .text import ATOM, C_TYPES, INT32, OR, PRODUCT, SHIFT, SUM, UNARY, Text, common, literal

#: Functions of ``isa.h`` and ``tir.h`` for arithmetic modulo 2^32 and 2^64.
_WRAPPING = {
    "int32": {"+": "fb_add", "-": "fb_sub", "*": "fb_mul"},
    "int64": {"+": "fb_tir_add64", "-": "fb_tir_sub64", "*": "fb_tir_mul64"},
}


@prints(prim.Add)
def _add(printer: ExpressionPrinter, expression: prim.Add) -> Text:
    return _arithmetic(printer, "+", SUM, expression, iv.add)


@prints(prim.Sub)
def _subtract(printer: ExpressionPrinter, expression: prim.Sub) -> Text:
    return _arithmetic(printer, "-", SUM, expression, iv.subtract)


@prints(prim.Mul)
def _multiply(printer: ExpressionPrinter, expression: prim.Mul) -> Text:
    return _arithmetic(printer, "*", PRODUCT, expression, iv.multiply)


def _arithmetic(
    printer: ExpressionPrinter,
    symbol: str,
    precedence: int,
    expression: prim.Add | prim.Sub | prim.Mul,
    bounds: Callable[[Interval, Interval], Interval],
) -> Text:
    dtype = printer.dtype(expression)
    a, b = printer(expression.a), printer(expression.b)
    if dtype in iv.FLOATS:
        code = f"{a.within(precedence)} {symbol} {b.within(precedence - 1)}"
        known = iv.float_sum(a.range, b.range) if symbol == "+" else iv.of_dtype(dtype)
        return Text(code, precedence, dtype, known)
    if symbol == "+" and b.code.startswith("-") and isinstance(expression.b, prim.IntImm):
        symbol, b = "-", literal(-int(expression.b.value), dtype)
        bounds = iv.subtract
    known, possible = bounds(a.range, b.range), iv.of_dtype(dtype)
    if known.inside(possible):
        a, c_type = wide_enough(a, b, known, dtype)
        code = f"{a.within(precedence)} {symbol} {b.within(precedence - 1)}"
        return Text(code, precedence, c_type, known)
    if dtype in _WRAPPING:
        return Text(f"{_WRAPPING[dtype][symbol]}({a.code}, {b.code})", ATOM, dtype, possible)
    wide = "uint64_t" if dtype == "uint64" else "uint32_t"
    left, right = a.within(UNARY), b.within(UNARY)
    code = f"({C_TYPES[dtype]})(({wide}){left} {symbol} ({wide}){right})"
    return Text(code, UNARY, dtype, possible)


def wide_enough(a: Text, b: Text, known: Interval, dtype: str) -> tuple[Text, str]:
    """The left operand, converted if C would compute too narrowly, and the result's C type."""
    if dtype != "int64":
        return a, dtype
    if "int64" in (a.dtype, b.dtype):
        return a, dtype
    if known.inside(INT32):
        return a, "int32"
    return Text(f"(int64_t){a.within(UNARY)}", UNARY, dtype, a.range), dtype


@prints(prim.Div)
def _divide(printer: ExpressionPrinter, expression: prim.Div) -> Text:
    return _quotient(printer, "/", "fb_tir_div", expression)


@prints(prim.Mod)
def _remainder(printer: ExpressionPrinter, expression: prim.Mod) -> Text:
    return _quotient(printer, "%", "fb_tir_mod", expression)


def _quotient(
    printer: ExpressionPrinter, symbol: str, defined: str, expression: prim.Div | prim.Mod
) -> Text:
    dtype = printer.dtype(expression)
    a, b = printer(expression.a), printer(expression.b)
    if dtype in iv.FLOATS:
        if symbol == "%":
            return _float_remainder("fb_fmodf", dtype, a, b)
        code = f"{a.within(PRODUCT)} / {b.within(UNARY)}"
        return Text(code, PRODUCT, dtype, iv.of_dtype(dtype))
    if b.range.low > 0:
        code = f"{a.within(PRODUCT)} {symbol} {b.within(UNARY)}"
        bound = max(abs(int(a.range.low)), abs(int(a.range.high)))
        known = Interval(-bound if a.range.low < 0 else 0, bound)
        return Text(code, PRODUCT, common(dtype, a, b), known)
    return helper(defined, dtype, a, b)


def _float_remainder(function: str, dtype: str, a: Text, b: Text) -> Text:
    if dtype == "float64":
        function = function.removesuffix("f")
    return Text(f"{function}({a.code}, {b.code})", ATOM, dtype, iv.of_dtype(dtype))


@prints(prim.FloorDiv)
def _floor_divide(printer: ExpressionPrinter, expression: prim.FloorDiv) -> Text:
    dtype = printer.dtype(expression)
    a, b = printer(expression.a), printer(expression.b)
    if dtype in iv.FLOATS:
        function = "fb_floorf" if dtype == "float32" else "fb_floor"
        code = f"{function}({a.within(PRODUCT)} / {b.within(UNARY)})"
        return Text(code, ATOM, dtype, iv.of_dtype(dtype))
    divisor = int(b.range.low)
    if b.range.low == b.range.high and divisor > 0:
        known = iv.floor_divide(a.range, divisor)
        if a.range.low >= 0:
            code = f"{a.within(PRODUCT)} / {b.within(UNARY)}"
            return Text(code, PRODUCT, common(dtype, a, b), known)
        if divisor & (divisor - 1) == 0:
            code = f"{a.within(PRODUCT)} >> {divisor.bit_length() - 1}"
            return Text(code, SHIFT, common(dtype, a, b), known)
    return helper("fb_tir_floordiv", dtype, a, b)


@prints(prim.FloorMod)
def _floor_remainder(printer: ExpressionPrinter, expression: prim.FloorMod) -> Text:
    dtype = printer.dtype(expression)
    a, b = printer(expression.a), printer(expression.b)
    if dtype in iv.FLOATS:
        return _float_remainder("fb_floormodf", dtype, a, b)
    divisor = int(b.range.low)
    if b.range.low == b.range.high and divisor > 0:
        known = Interval(0, divisor - 1)
        if a.range.low >= 0:
            code = f"{a.within(PRODUCT)} % {b.within(UNARY)}"
            return Text(code, PRODUCT, common(dtype, a, b), known)
        if divisor & (divisor - 1) == 0:
            code = f"{a.within(UNARY)} & {divisor - 1}"
            return Text(code, OR, common(dtype, a, b), known)
    return helper("fb_tir_floormod", dtype, a, b)


@prints(prim.Min)
def _minimum(printer: ExpressionPrinter, expression: prim.Min) -> Text:
    return _extreme(printer, "min", expression, iv.minimum)


@prints(prim.Max)
def _maximum(printer: ExpressionPrinter, expression: prim.Max) -> Text:
    return _extreme(printer, "max", expression, iv.maximum)


def _extreme(
    printer: ExpressionPrinter,
    name: str,
    expression: prim.Min | prim.Max,
    bounds: Callable[[Interval, Interval], Interval],
) -> Text:
    dtype = printer.dtype(expression)
    a, b = printer(expression.a), printer(expression.b)
    known = bounds(a.range, b.range)
    if dtype not in iv.FLOATS:
        # Where one operand cannot matter it is dropped (C compilers warn of such comparisons).
        if known == a.range and a.range.inside(_beaten(name, b.range)):
            return a
        if known == b.range and b.range.inside(_beaten(name, a.range)):
            return b
        result = helper(f"fb_tir_{name}", dtype, a, b, known)
        if result.dtype == "int64" and known.inside(INT32):
            return Text(f"(int32_t){result.code}", UNARY, "int32", known)
        return result
    suffix = "f" if dtype == "float32" else "_double"
    if not b.range.nan:
        code = f"fb_{name}{suffix}_number({a.code}, {b.code})"
    elif not a.range.nan:
        code = f"fb_{name}{suffix}_number({b.code}, {a.code})"
    else:
        code = f"fb_{name}{suffix}({a.code}, {b.code})"
    return Text(code, ATOM, dtype, known)


def _beaten(name: str, other: Interval) -> Interval:
    """The values that win against everything in `other`."""
    if name == "max":
        return Interval(other.high, math.inf)
    return Interval(-math.inf, other.low)


def helper(
    name: str,
    dtype: str,
    a: Text,
    b: Text,
    known: Interval | None = None,
    wide: bool = False,
) -> Text:
    """A call of one of the helpers, which exist for 32 and 64 bits, signed and not.

    `wide` keeps a 64-bit operation at 64 bits although its operands are known to be small.
    """
    if not wide and a.range.low > INT32.low:  # INT32_MIN / -1 needs 64 bits
        dtype = common(dtype, a, b)
    bits, signed = iv.INTEGER_BITS[dtype]
    suffix = ("i" if signed or bits < 32 else "u") + ("64" if bits == 64 else "32")
    result = iv.of_dtype(dtype) if known is None else known
    call = Text(f"{name}_{suffix}({a.code}, {b.code})", ATOM, dtype, result)
    if bits < 32 and known is None:  # a quotient may leave a narrow type: -128 / -1
        return Text(f"({C_TYPES[dtype]}){call.code}", UNARY, dtype, result)
    return call
