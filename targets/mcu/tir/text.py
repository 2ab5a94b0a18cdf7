"""Pieces of C: how tightly they bind, which type C gives them, what values they can have."""

from __future__ import annotations

import dataclasses

from . import interval as iv
from .interval import Interval

C_TYPES = {
    "bool": "uint8_t",
    "int8": "int8_t",
    "uint8": "uint8_t",
    "int16": "int16_t",
    "uint16": "uint16_t",
    "int32": "int32_t",
    "uint32": "uint32_t",
    "int64": "int64_t",
    "uint64": "uint64_t",
    "float32": "float",
    "float64": "double",
}

# C's precedence levels, tightest first; only as many as are told apart below.
ATOM, UNARY, PRODUCT, SUM, SHIFT, RELATION, AND, OR, TERNARY = range(9)


@dataclasses.dataclass(frozen=True)
class Text:
    """A printed expression: how tightly it binds, its C type, and what it can be.

    The C type (as a dtype's name) is the expression's own, but int32 where an int64 expression is
    known to fit: indices are 64 bits wide in TIR, and 32-bit cores should not pay for that.
    """

    code: str
    precedence: int
    dtype: str
    range: Interval

    def within(self, precedence: int) -> str:
        """The code, in parentheses unless it binds at least as tightly as asked."""
        return self.code if self.precedence <= precedence else f"({self.code})"


INT32 = iv.of_dtype("int32")


def literal(value: int, dtype: str) -> Text:
    """An integer literal of that type."""
    known = iv.constant(value)
    if dtype == "int64" and known.inside(INT32):
        dtype = "int32"
    if dtype == "int64":
        if value == -(2**63):
            return Text("INT64_MIN", ATOM, dtype, known)
        return Text(f"INT64_C({value})", ATOM, dtype, known)
    if dtype == "uint64":
        return Text(f"UINT64_C({value})", ATOM, dtype, known)
    if dtype == "int32" and value == -(2**31):
        return Text("INT32_MIN", ATOM, dtype, known)
    suffix = "u" if dtype == "uint32" else ""
    return Text(f"{value}{suffix}", ATOM if value >= 0 else UNARY, dtype, known)


def common(dtype: str, a: Text, b: Text) -> str:
    """The C type of an operation of that dtype whose result is no wider than its operands."""
    if dtype != "int64" or "int64" in (a.dtype, b.dtype):
        return dtype
    return "int32"
