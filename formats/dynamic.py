"""The dynamic tree: exponents in unary, so large values get the fraction bits (spec 3).

Dettmers et al. 2021. The number of leading zero bits selects a decade; what is left divides the
decade from 0.1 to 1 linearly. Made for blocks whose largest magnitude is scaled to 1, over seven
decades at 8 bits.
"""

from __future__ import annotations

import dataclasses
import functools
import re

import numpy as np
import numpy.typing as npt

from ..errors import FewbitsError
from .base import NumberFormat, check_bits

_TEXT = re.compile(r"(u?)dynamic(\d{1,2})(?:_e(\d))?")


@dataclasses.dataclass(frozen=True)
class DynamicTree(NumberFormat):
    """``dynamic8``, ``udynamic8``, ``dynamic4``, ``dynamic8_e5``. Codes ascend with their levels.

    The levels hold 0 and +1 but not -1: a block whose extreme is negative is clipped (0.7 % at
    8 bits).

    Attributes:
        bits: 4 to 8.
        signed: half of the levels are negative.
        exponent_bits: decades; None for all of them, ``bits - 1``. Fewer only for signed ones.
    """

    bits: int = 8
    signed: bool = True
    exponent_bits: int | None = None

    def __post_init__(self) -> None:
        check_bits(self.bits, 4, 8, "dynamic tree")
        most = self.bits - 1
        decades = most if self.exponent_bits is None else self.exponent_bits
        if not 1 <= decades <= most or (decades < most and not self.signed):
            raise FewbitsError(
                "bad-format",
                f"a dynamic tree of {self.bits} bits has "
                + (f"1 to {most}" if self.signed else str(most))
                + f" exponent bits, not {decades}",
            )
        object.__setattr__(self, "exponent_bits", decades)

    @classmethod
    def parse(cls, text: str) -> DynamicTree | None:
        """The format called `text`, or None where that is no dynamic tree's name."""
        match = _TEXT.fullmatch(text)
        if match is None:
            return None
        return cls(int(match[2]), not match[1], None if match[3] is None else int(match[3]))

    @property
    def name(self) -> str:
        """``dynamic8``, ``udynamic8``, ``dynamic8_e5``."""
        text = f"{'' if self.signed else 'u'}dynamic{self.bits}"
        return text if self.exponent_bits == self.bits - 1 else f"{text}_e{self.exponent_bits}"

    def values(self) -> npt.NDArray[np.float64]:
        """All levels ascending: code 0 is the smallest."""
        return _tree(self.bits, self.signed, int(self.exponent_bits or 0)).copy()


@functools.lru_cache(maxsize=64)
def _tree(bits: int, signed: bool, decades: int) -> npt.NDArray[np.float64]:
    value_bits = bits - 1
    positive: list[npt.NDArray[np.float64]] = []
    for i in range(decades):
        bins = 2 ** (i + value_bits - decades + (not signed))
        positive.append(_middles(bins) * 10.0 ** (i - (decades - 1)))
    if extra := 2 ** (value_bits - decades) - 1:
        positive.append(_middles(extra))
    magnitudes = np.concatenate(positive)
    negative = -magnitudes if signed else magnitudes[:0]
    return np.sort(np.concatenate([negative, magnitudes, [0.0, 1.0]]))


def _middles(bins: int) -> npt.NDArray[np.float64]:
    edges = np.linspace(0.1, 1.0, bins + 1)
    return (edges[1:] + edges[:-1]) / 2
