"""Flint and power-of-two numbers, ANT's types (spec 8, Guo et al. 2022).

Both are cheap for integer hardware: a flint code is ``base << shift`` found from its leading one,
a power of two only a shift. Flint is an integer near 0 and an exponent far from it.
"""

from __future__ import annotations

import dataclasses
import re

import numpy as np
import numpy.typing as npt

from .base import NumberFormat, check_bits

_FLINT = re.compile(r"(u?)flint(\d{1,2})")
_POT = re.compile(r"(u?)pot(\d{1,2})")


@dataclasses.dataclass(frozen=True)
class Flint(NumberFormat):
    """``flint4``, ``uflint4``. A signed code is a sign bit over an unsigned code one bit shorter.

    Attributes:
        bits: 3 to 8.
        signed: has a sign bit.
    """

    bits: int = 4
    signed: bool = True

    def __post_init__(self) -> None:
        check_bits(self.bits, 3, 8, "flint")

    @classmethod
    def parse(cls, text: str) -> Flint | None:
        """The format called `text`, or None where that is no flint."""
        match = _FLINT.fullmatch(text)
        return None if match is None else cls(int(match[2]), signed=not match[1])

    @property
    def name(self) -> str:
        """``flint4`` or ``uflint4``."""
        return f"{'' if self.signed else 'u'}flint{self.bits}"

    def values(self) -> npt.NDArray[np.float64]:
        """``base << shift`` with the sign, by code."""
        base, shift = self.base_and_shift()
        return base * 2.0**shift

    def base_and_shift(self) -> tuple[npt.NDArray[np.int16], npt.NDArray[np.uint8]]:
        """``(base, shift)`` by code, ``[2**bits]`` each: the real is ``base << shift``.

        A flint product is then an integer product of bases, shifted by the sum of the shifts.
        """
        value_bits = self.bits - self.signed
        pairs = [_base_and_shift(code, value_bits) for code in range(1 << value_bits)]
        base = np.array([b for b, _ in pairs], np.int16)
        shift = np.array([s for _, s in pairs], np.uint8)
        if self.signed:
            base, shift = np.concatenate([base, -base]), np.concatenate([shift, shift])
        return base, shift


def _base_and_shift(code: int, value_bits: int) -> tuple[int, int]:
    """Leading one, then exponent and mantissa: the fewer zeros, the longer the mantissa."""
    top = 1 << (value_bits - 1)
    if code < top:
        return code, 0
    rest = code - top
    zeros = value_bits - 1 - rest.bit_length()
    exponent = value_bits - 1 + zeros
    mantissa_bits = max(value_bits - 2 - zeros, 0)
    mantissa = rest & ((1 << mantissa_bits) - 1)
    return (1 << mantissa_bits) + mantissa, exponent - mantissa_bits


@dataclasses.dataclass(frozen=True)
class PowerOfTwo(NumberFormat):
    """``pot4``, ``upot4``: 0, 1, 2, 4, 8, ... with a sign bit on top.

    Attributes:
        bits: 3 to 6 (5 unsigned); a larger one would span more than float32 scales can undo.
        signed: has a sign bit.
    """

    bits: int = 4
    signed: bool = True

    def __post_init__(self) -> None:
        check_bits(self.bits, 2 + self.signed, 5 + self.signed, "power-of-two")

    @classmethod
    def parse(cls, text: str) -> PowerOfTwo | None:
        """The format called `text`, or None where that is no power of two."""
        match = _POT.fullmatch(text)
        return None if match is None else cls(int(match[2]), signed=not match[1])

    @property
    def name(self) -> str:
        """``pot4`` or ``upot4``."""
        return f"{'' if self.signed else 'u'}pot{self.bits}"

    def values(self) -> npt.NDArray[np.float64]:
        """0 for code 0, else ``2**(code - 1)``, with the sign."""
        exponents = np.arange((1 << (self.bits - self.signed)) - 1)
        magnitudes = np.concatenate([[0.0], 2.0**exponents])
        return np.concatenate([magnitudes, -magnitudes]) if self.signed else magnitudes
