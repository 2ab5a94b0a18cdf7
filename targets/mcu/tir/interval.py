"""What is known of a value while C is printed: bounds, and whether it may be NaN.

C leaves signed overflow and conversions out of range undefined where TIR wraps or saturates. With
bounds the printer writes ``a + b`` wherever that is safe, which is nearly everywhere (indices,
int8 products), and the long way only where it is not.
"""

from __future__ import annotations

import dataclasses
import math

INTEGER_BITS = {
    "bool": (1, False),
    "int8": (8, True),
    "uint8": (8, False),
    "int16": (16, True),
    "uint16": (16, False),
    "int32": (32, True),
    "uint32": (32, False),
    "int64": (64, True),
    "uint64": (64, False),
}
FLOATS = frozenset({"float32", "float64"})

Number = int | float


@dataclasses.dataclass(frozen=True)
class Interval:
    """All values lie in [low, high], or are NaN if `nan`."""

    low: Number
    high: Number
    nan: bool = False

    def inside(self, other: Interval) -> bool:
        """Whether every value (NaN included) is one of `other`'s."""
        return self.low >= other.low and self.high <= other.high and self.nan <= other.nan

    def union(self, other: Interval) -> Interval:
        """The smallest interval that holds both."""
        return Interval(min(self.low, other.low), max(self.high, other.high), self.nan or other.nan)


def of_dtype(dtype: str) -> Interval:
    """Everything a dtype can hold."""
    if dtype in FLOATS:
        return Interval(-math.inf, math.inf, True)
    bits, signed = INTEGER_BITS[dtype]
    if signed:
        return Interval(-(1 << (bits - 1)), (1 << (bits - 1)) - 1)
    return Interval(0, (1 << bits) - 1)


def constant(value: Number) -> Interval:
    """Exactly this value."""
    if isinstance(value, float) and math.isnan(value):
        return Interval(math.inf, -math.inf, True)
    return Interval(value, value)


def add(a: Interval, b: Interval) -> Interval:
    """Bounds of the exact sum of integers."""
    return Interval(a.low + b.low, a.high + b.high)


def subtract(a: Interval, b: Interval) -> Interval:
    """Bounds of the exact difference of integers."""
    return Interval(a.low - b.high, a.high - b.low)


def multiply(a: Interval, b: Interval) -> Interval:
    """Bounds of the exact product of integers."""
    corners = [x * y for x in (a.low, a.high) for y in (b.low, b.high)]
    return Interval(min(corners), max(corners))


def float_sum(a: Interval, b: Interval) -> Interval:
    """Bounds of a rounded float sum. They are kept where they are small whole numbers, which
    rounding cannot pass; elsewhere nothing is known."""
    low, high = a.low + b.low, a.high + b.high
    nan = a.nan or b.nan or math.isinf(a.low) or math.isinf(a.high)
    nan = nan or math.isinf(b.low) or math.isinf(b.high)
    if not (_small_integer(low) and _small_integer(high)):
        return Interval(-math.inf, math.inf, nan)
    return Interval(low, high, nan)


def _small_integer(value: Number) -> bool:
    return math.isfinite(value) and abs(value) <= 2**24 and value == int(value)


def maximum(a: Interval, b: Interval) -> Interval:
    """Bounds of max, which passes NaN on."""
    return Interval(max(a.low, b.low), max(a.high, b.high), a.nan or b.nan)


def minimum(a: Interval, b: Interval) -> Interval:
    """Bounds of min, which passes NaN on."""
    return Interval(min(a.low, b.low), min(a.high, b.high), a.nan or b.nan)


def floor_divide(a: Interval, divisor: int) -> Interval:
    """Bounds of the floor quotient by a positive constant."""
    return Interval(a.low // divisor, a.high // divisor)
