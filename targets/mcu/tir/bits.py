"""Shifts and bitwise operations. C leaves shifts of negative numbers and by too much undefined."""

from __future__ import annotations

from tvm.ir import prim

from . import interval as iv
from .arithmetic import helper, wide_enough
from .expressions import ExpressionPrinter, prints
from .interval import Interval
from .text import ATOM, C_TYPES, OR, PRODUCT, SHIFT, UNARY, Text, common, literal


@prints(prim.LShift)
def _shift_left(printer: ExpressionPrinter, expression: prim.LShift) -> Text:
    dtype = printer.dtype(expression)
    return shift(dtype, printer(expression.a), printer(expression.b))


def shift(dtype: str, a: Text, b: Text) -> Text:
    """``a << b`` modulo the dtype's size; 0 where `b` is as large as that or negative."""
    bits, _ = iv.INTEGER_BITS[dtype]
    possible = iv.of_dtype(dtype)
    if not b.range.inside(Interval(0, bits - 1)):
        return helper("fb_tir_shl", dtype, a, b, wide=True)
    if b.range.low == b.range.high:
        factor = 1 << int(b.range.low)
        known = Interval(a.range.low * factor, a.range.high * factor)
        if known.inside(possible):
            a, c_type = wide_enough(a, a, known, dtype)
            if a.range.low >= 0:
                code = f"{a.within(PRODUCT)} << {b.within(PRODUCT)}"
                return Text(code, SHIFT, c_type, known)
            code = f"{a.within(PRODUCT)} * {literal(factor, dtype).code}"
            return Text(code, PRODUCT, c_type, known)
    if dtype in ("int32", "int64"):
        function = "fb_shl" if dtype == "int32" else "fb_tir_shl_i64"
        return Text(f"{function}({a.code}, {b.code})", ATOM, dtype, possible)
    unsigned = "uint64_t" if bits == 64 else "uint32_t"
    code = f"({C_TYPES[dtype]})(({unsigned}){a.within(UNARY)} << {b.within(PRODUCT)})"
    return Text(code, UNARY, dtype, possible)


@prints(prim.RShift)
def _shift_right(printer: ExpressionPrinter, expression: prim.RShift) -> Text:
    dtype = printer.dtype(expression)
    a, b = printer(expression.a), printer(expression.b)
    bits, _ = iv.INTEGER_BITS[dtype]
    if not b.range.inside(Interval(0, bits - 1)):
        return helper("fb_tir_shr", dtype, a, b, wide=True)
    known = Interval(min(a.range.low, 0), max(a.range.high, 0))
    if b.range.low == b.range.high:
        known = iv.floor_divide(a.range, 1 << int(b.range.low))
    c_type = common(dtype, a, a)
    if c_type == "int32" and b.range.high > 31:
        a, c_type = Text(f"(int64_t){a.within(UNARY)}", UNARY, dtype, a.range), dtype
    return Text(f"{a.within(PRODUCT)} >> {b.within(PRODUCT)}", SHIFT, c_type, known)


@prints(prim.BitwiseAnd, prim.BitwiseOr, prim.BitwiseXor)
def _bitwise(printer: ExpressionPrinter, expression: prim.BinaryOpExpr) -> Text:
    symbol = {"BitwiseAnd": "&", "BitwiseOr": "|", "BitwiseXor": "^"}[type(expression).__name__]
    a, b = printer(expression.a), printer(expression.b)
    c_type = common(printer.dtype(expression), a, b)
    code = f"{a.within(UNARY)} {symbol} {b.within(UNARY)}"
    return Text(code, OR, c_type, iv.of_dtype(c_type))


@prints(prim.BitwiseNot)
def _bitwise_not(printer: ExpressionPrinter, expression: prim.BitwiseNot) -> Text:
    dtype = printer.dtype(expression)
    if dtype == "bool":
        return Text(f"!{printer(expression.a).within(UNARY)}", UNARY, "bool", Interval(0, 1))
    code = f"({C_TYPES[dtype]})~{printer(expression.a).within(UNARY)}"
    return Text(code, UNARY, dtype, iv.of_dtype(dtype))
