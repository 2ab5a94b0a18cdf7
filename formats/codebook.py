"""Codebooks: a named table of reals instead of a grid (spec 1 and 3).

NF4 and AF4 put the 16 levels where normal weights are dense, after the block's largest magnitude
was scaled to 1; quantile codebooks do so for any width, or for the values actually seen.
"""

from __future__ import annotations

import dataclasses
import functools
import re
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from ..errors import FewbitsError
from .base import NumberFormat, check_bits, refuse_nan

# 1 minus half of the average of 1/15 and 1/16 per side, as NF4's authors round it.
_NF4_TAIL = 0.9677083


def _normal_quantiles(probabilities: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    inverse = NormalDist().inv_cdf
    return np.array([inverse(float(p)) for p in probabilities])


def normal_float_levels() -> npt.NDArray[np.float64]:
    """NF4 as constructed: 8 positive normal quantiles, 0, 7 negative ones, over the largest."""
    positive = _normal_quantiles(np.linspace(_NF4_TAIL, 0.5, 9)[:-1])
    negative = -_normal_quantiles(np.linspace(_NF4_TAIL, 0.5, 8)[:-1])
    levels = np.sort(np.concatenate([positive, [0.0], negative]))
    return levels / levels.max()


def normal_quantile_levels(bits: int) -> npt.NDArray[np.float64]:
    """Midpoints of the ``2**bits + 1`` normal quantiles from ``2**-(bits+1)`` to one minus that.

    Largest magnitude 1; symmetric, therefore without 0.
    """
    tail = 2.0 ** -(bits + 1)
    quantiles = _normal_quantiles(np.linspace(tail, 1 - tail, 2**bits + 1))
    levels = (quantiles[1:] + quantiles[:-1]) / 2
    levels = (levels - levels[::-1]) / 2
    return levels / levels.max()


# The published NF4 table, rounded to float32 by its authors.
_NF4 = (
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635,
    -0.18477343022823334, -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725,
    0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941,
    0.7229568362236023, 1.0,
)  # fmt: skip
# Least expected absolute error for normal blocks of 64 (Yoshida 2023).
_AF4 = (
    -1.0, -0.69441008, -0.51243739, -0.3736951, -0.25607552, -0.14982478, -0.04934812, 0.0,
    0.04273164, 0.12934483, 0.21961274, 0.31675666, 0.42563882, 0.55496234, 0.72424863, 1.0,
)  # fmt: skip
# The 4-bit float of bitsandbytes, not the OCP one, by the low three bits; bit 3 is the sign.
_FP4_BNB = tuple(v / 12 for v in (0.0, 0.0625, 8.0, 12.0, 4.0, 6.0, 2.0, 3.0))

_TABLES: dict[str, tuple[float, ...]] = {
    "nf4": _NF4,
    "af4": _AF4,
    "fp4-bnb": _FP4_BNB + tuple(-v for v in _FP4_BNB),
}
_QUANTILE = re.compile(r"quantile(\d)")
_LISTED = re.compile(r"codebook\[([^\[\]]*)\]")


@dataclasses.dataclass(frozen=True)
class Codebook(NumberFormat):
    """A fixed table: ``nf4``, ``af4``, ``fp4-bnb``, ``quantile4``, ``codebook[-1,0,0.5,1]``.

    Attributes:
        table: the real of each code, ``2**bits`` of them, finite, at least two different.
        label: the name of a table that needs no listing, or None.
    """

    table: tuple[float, ...]
    label: str | None = None
    bits: int = dataclasses.field(init=False)
    signed: bool = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        count = len(self.table)
        if count not in (2, 4, 8, 16, 32, 64, 128, 256):
            raise FewbitsError(
                "bad-format", f"a codebook has 2, 4, 8, ... or 256 entries, not {count}"
            )
        if not np.isfinite(self.table).all() or len(set(self.table)) < 2:
            raise FewbitsError("bad-format", "a codebook's entries are finite and not all equal")
        object.__setattr__(self, "bits", count.bit_length() - 1)
        object.__setattr__(self, "signed", min(self.table) < 0)

    @classmethod
    def named(cls, name: str) -> Codebook:
        """One of the tables known by name; `name` as in `parse`."""
        known = cls.parse(name)
        if known is None:
            raise FewbitsError("unknown-format", f"no codebook is called {name!r}")
        return known

    @classmethod
    def from_quantiles(cls, x: npt.ArrayLike, bits: int) -> Codebook:
        """The quantile codebook of the values `x`, largest magnitude 1 (spec 1).

        Levels are midpoints of consecutive ones of ``2**bits + 1`` quantiles. The table is not
        known by name, so it travels with the tensor and counts in its size.

        Raises:
            FewbitsError: ``not-a-number``, or ``bad-format`` where `x` has too few distinct values.
        """
        check_bits(bits, 1, 8, "quantile")
        x = np.asarray(x, np.float64)
        refuse_nan(x, "a quantile codebook")
        if x.size == 0 or not np.isfinite(x).all():
            raise FewbitsError("bad-format", "quantiles need finite values")
        quantiles = np.quantile(x, np.linspace(0, 1, 2**bits + 1))
        levels = (quantiles[1:] + quantiles[:-1]) / 2
        largest = float(np.abs(levels).max())
        # float32, the width at which the table is stored.
        levels = (levels / (largest or 1.0)).astype(np.float32)
        return cls(tuple(float(v) for v in levels))

    @classmethod
    def parse(cls, text: str) -> Codebook | None:
        """The codebook called `text`, or None where that is no codebook's name."""
        if text in _TABLES:
            return cls(_TABLES[text], text)
        if match := _QUANTILE.fullmatch(text):
            return _normal_quantile(int(match[1]))
        if match := _LISTED.fullmatch(text):
            try:
                return cls(tuple(float(v) for v in match[1].split(",", 256)))
            except ValueError:
                raise FewbitsError("bad-format", f"not a list of numbers: {match[1]}") from None
        return None

    @property
    def name(self) -> str:
        """The label, or the whole table."""
        return self.label or f"codebook[{','.join(f'{v:.17g}' for v in self.table)}]"

    @property
    def table_bits(self) -> int:
        """A table without a name is stored in float32."""
        return 0 if self.label else 32 * len(self.table)

    def values(self) -> npt.NDArray[np.float64]:
        """The table."""
        return np.array(self.table)


@functools.lru_cache(maxsize=8)
def _normal_quantile(bits: int) -> Codebook:
    check_bits(bits, 1, 8, "quantile")
    return Codebook(tuple(float(v) for v in normal_quantile_levels(bits)), f"quantile{bits}")
