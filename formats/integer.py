"""Integers of 2 to 8 bits (spec 0.1): two's complement or unsigned, with or without the extreme.

The symmetric, affine and narrow kinds differ in what surrounds the grid, not in the codes:
symmetric has no zero point, affine has one, narrow leaves out the most negative code so that
``-x`` is always there.
"""

from __future__ import annotations

import dataclasses
import re

import numpy as np
import numpy.typing as npt

from .base import Codes, NumberFormat, Reals, check_bits, in_chunks, refuse_nan

_TEXT = re.compile(r"(u?)int(\d{1,2})(-narrow)?")


@dataclasses.dataclass(frozen=True)
class Integer(NumberFormat):
    """``int4``, ``uint4``, ``int4-narrow``.

    Attributes:
        bits: 2 to 8.
        signed: two's complement.
        narrow: the most negative code is never written (only for signed ones).
    """

    bits: int = 8
    signed: bool = True
    narrow: bool = False

    def __post_init__(self) -> None:
        check_bits(self.bits, 2, 8, "integer")
        if self.narrow and not self.signed:
            object.__setattr__(self, "narrow", False)

    @classmethod
    def parse(cls, text: str) -> Integer | None:
        """The format called `text`, or None where that is no integer's name."""
        match = _TEXT.fullmatch(text)
        if match is None or (match[1] and match[3]):
            return None
        return cls(int(match[2]), signed=not match[1], narrow=bool(match[3]))

    @property
    def name(self) -> str:
        """``int4``, ``uint4`` or ``int4-narrow``."""
        return f"{'' if self.signed else 'u'}int{self.bits}{'-narrow' if self.narrow else ''}"

    @property
    def minimum(self) -> int:
        """Smallest integer."""
        return -(1 << (self.bits - 1)) + self.narrow if self.signed else 0

    @property
    def maximum(self) -> int:
        """Largest integer."""
        return (1 << (self.bits - self.signed)) - 1

    def values(self) -> npt.NDArray[np.float64]:
        """Two's complement of each code."""
        return self.integers(np.arange(1 << self.bits)).astype(np.float64)

    def levels(self) -> npt.NDArray[np.float64]:
        """Every integer from `minimum` to `maximum`."""
        return np.arange(self.minimum, self.maximum + 1, dtype=np.float64)

    def integers(self, codes: npt.ArrayLike) -> npt.NDArray[np.int16]:
        """The integers that the codes mean."""
        codes = np.asarray(codes).astype(np.int16)
        half = np.int16(1 << (self.bits - 1))
        return (codes ^ half) - half if self.signed else codes

    def encode(self, x: npt.ArrayLike) -> Codes:
        """Codes of `x` rounded half to even and saturated; refuses NaN."""

        def nearest(part: Reals) -> Codes:
            refuse_nan(part, self.name)
            integers = np.clip(np.rint(part), self.minimum, self.maximum).astype(np.int16)
            return (integers & ((1 << self.bits) - 1)).astype(np.uint8)

        return in_chunks(nearest, x)
