"""Logarithmic formats: equal ratios between neighbours, as in hardware that adds exponents.

The NNIE backend of MQBench's table (spec 11) keeps 8 bits with 16 steps an octave: the same
relative error over eight octaves, and nothing but 0 below them.
"""

from __future__ import annotations

import dataclasses
import re

import numpy as np
import numpy.typing as npt

from .base import NumberFormat, check_bits

_TEXT = re.compile(r"log(\d{1,2})x(\d{1,3})")


@dataclasses.dataclass(frozen=True)
class Logarithmic(NumberFormat):
    """``log8x16``: 0 and ``2**(k / steps)`` up to 1, with a sign bit on top.

    Attributes:
        bits: 3 to 8, sign included.
        steps: levels an octave, 1 to 128.
    """

    bits: int = 8
    steps: int = 16
    signed = True

    def __post_init__(self) -> None:
        check_bits(self.bits, 3, 8, "logarithmic")
        check_bits(self.steps, 1, 128, "logarithmic steps:")

    @classmethod
    def parse(cls, text: str) -> Logarithmic | None:
        """The format called `text`, or None where that is no logarithmic one."""
        match = _TEXT.fullmatch(text)
        return None if match is None else cls(int(match[1]), int(match[2]))

    @property
    def name(self) -> str:
        """``log8x16``."""
        return f"log{self.bits}x{self.steps}"

    def values(self) -> npt.NDArray[np.float64]:
        """0 for code 0, else ``2**((code - largest code) / steps)``, with the sign."""
        codes = np.arange(1, 1 << (self.bits - 1))
        magnitudes = np.concatenate([[0.0], 2.0 ** ((codes - codes[-1]) / self.steps)])
        return np.concatenate([magnitudes, -magnitudes])
