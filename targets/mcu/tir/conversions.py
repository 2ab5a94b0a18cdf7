"""Conversions between types: integers wrap, floats saturate, NaN becomes 0."""

from __future__ import annotations

import math

from tvm import ir
from tvm.ir import prim

from . import interval as iv
from .expressions import ExpressionPrinter, prints
from .interval import Interval
from .text import ATOM, C_TYPES, INT32, RELATION, SUM, UNARY, Text, literal


@prints(prim.Cast)
def _cast(printer: ExpressionPrinter, expression: prim.Cast) -> Text:
    dtype, value = printer.dtype(expression), expression.value
    if dtype not in iv.FLOATS and str(value.ty.dtype) in iv.FLOATS:
        value = unclamped(value, iv.of_dtype(dtype))
    return converted(printer(value), dtype)


def converted(value: Text, dtype: str) -> Text:
    """A value as another type: integers wrap, floats saturate and NaN becomes 0."""
    if dtype == value.dtype:
        return value
    if dtype == "bool":
        zero = "0.0f" if value.dtype == "float32" else "0"
        return Text(f"{value.within(SUM)} != {zero}", RELATION, dtype, Interval(0, 1))
    c_type, possible = C_TYPES[dtype], iv.of_dtype(dtype)
    if dtype in iv.FLOATS:
        if value.dtype in iv.FLOATS:
            known = value.range if dtype == "float64" else possible
        else:
            known = Interval(float(value.range.low), float(value.range.high))
        return Text(f"({c_type}){value.within(UNARY)}", UNARY, dtype, known)
    if value.dtype in iv.FLOATS:
        whole = Interval(
            value.range.low if math.isinf(value.range.low) else math.floor(value.range.low),
            value.range.high if math.isinf(value.range.high) else math.ceil(value.range.high),
            value.range.nan,
        )
        if whole.inside(possible):
            return Text(f"({c_type}){value.within(UNARY)}", UNARY, dtype, whole)
        source = "float" if value.dtype == "float32" else "double"
        return Text(f"fb_{source}_to_{dtype}({value.code})", ATOM, dtype, possible)
    if dtype == "int64" and value.range.inside(INT32):
        dtype, c_type, possible = "int32", "int32_t", INT32
        if value.dtype == dtype:
            return value
    fits = value.range.inside(possible)
    known = value.range if fits else possible
    source_bits, _ = iv.INTEGER_BITS[value.dtype]
    if fits and dtype == "int32" and source_bits < 32:  # C promotes by itself
        return Text(value.code, value.precedence, dtype, known)
    if fits and value.code.lstrip("-").isdigit():
        return literal(int(value.range.low), dtype)
    return Text(f"({c_type}){value.within(UNARY)}", UNARY, dtype, known)


def reinterpreted(printer: ExpressionPrinter, call: ir.Call, dtype: str) -> Text:
    """The same bits as another type of that size."""
    value = printer(call.args[0])
    if value.dtype == dtype:
        return value
    if value.dtype == "float32" and dtype in ("int32", "uint32"):
        code = f"({C_TYPES[dtype]})fb_float_bits({value.code})"
        return Text(code, UNARY, dtype, iv.of_dtype(dtype))
    if dtype == "float32" and value.dtype in ("int32", "uint32"):
        code = f"fb_bits_float((uint32_t){value.within(UNARY)})"
        return Text(code, ATOM, dtype, iv.of_dtype(dtype))
    if dtype not in iv.FLOATS and value.dtype not in iv.FLOATS:
        return converted(value, dtype)
    raise printer.refusal(f"reinterpretation of {value.dtype} as {dtype}")


def unclamped(value: ir.Expr, limits: Interval) -> ir.Expr:
    """A float without clamps that its conversion to an integer of these limits repeats."""
    while isinstance(value, prim.Min | prim.Max) and isinstance(value.b, prim.FloatImm):
        bound = value.b.value
        if bound < limits.high if isinstance(value, prim.Min) else bound > limits.low:
            break
        value = value.a
    return value
