"""What every number format can do: a table from codes to reals, and the nearest code of a real.

A code is a bit pattern of at most 8 bits, held in a ``uint8``: what packing stores and what a
kernel reads. A format is a table of ``2**bits`` reals indexed by code, so that grids (integers,
floats) and codebooks (NF4, dynamic tree, flint) are one kind of thing, and a 256-entry lookup is a
valid decoder of any of them. Reals given to `encode` are already divided by their scale; scales
belong to :mod:`.compress`.
"""

from __future__ import annotations

import abc
import dataclasses
import functools
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from ..errors import FewbitsError

Reals = npt.NDArray[np.floating]
Codes = npt.NDArray[np.uint8]

# Elements encoded at a time, which bounds the float64 copies.
_CHUNK = 1 << 18
# Up to so many thresholds comparing with each is faster than a binary search.
_FEW = 31


class NumberFormat(abc.ABC):
    """A number format. Subclasses are frozen dataclasses: equal fields, equal format.

    Attributes:
        bits: bits of a code, 1 to 8.
        signed: whether there are negative levels.
    """

    bits: int
    signed: bool

    @property
    @abc.abstractmethod
    def name(self) -> str:
        """The text form, which `parse_format` reads back to an equal format."""

    @abc.abstractmethod
    def values(self) -> npt.NDArray[np.float64]:
        """The real of each code, ``[2**bits]``; NaN and infinities where the format has them.

        Several codes may share a real (±0); the encoder emits the smallest of them.
        """

    @property
    def table_bits(self) -> int:
        """Bits of a table that must travel with the tensor; 0 where the name says it all."""
        return 0

    def levels(self) -> npt.NDArray[np.float64]:
        """The distinct reals that `encode` can reach, ascending."""
        return _grid(self).levels

    @property
    def reach(self) -> float:
        """The largest magnitude among the levels: what a block's largest value is scaled to."""
        levels = self.levels()
        return float(max(abs(levels[0]), abs(levels[-1])))

    def encode(self, x: npt.ArrayLike) -> Codes:
        """Codes of the levels nearest to `x`, in the shape of `x`.

        A tie goes to the level with the even code, as in IEEE rounding. What lies outside the
        levels, infinities included, gets the outermost one.

        Raises:
            FewbitsError: ``not-a-number`` where `x` has a NaN and the format has none.
        """
        grid = _grid(self)

        def nearest(part: Reals) -> Codes:
            refuse_nan(part, self.name)
            return grid.codes[grid.rank(part)]

        return in_chunks(nearest, x)

    def decode(self, codes: npt.ArrayLike) -> npt.NDArray[np.float32]:
        """Reals of the codes as float32, in their shape.

        Raises:
            FewbitsError: ``bad-code`` where a code has more than `bits` bits.
        """
        codes = np.asarray(codes)
        if codes.size and (int(codes.max()) >> self.bits or int(codes.min()) < 0):
            raise FewbitsError("bad-code", f"a code of {self.name} has more than {self.bits} bits")
        return _values32(self)[codes]

    def round(self, x: npt.ArrayLike) -> npt.NDArray[np.float32]:
        """`x` as the format keeps it: decode after encode."""
        return self.decode(self.encode(x))

    def __str__(self) -> str:
        return self.name


def in_chunks(function: Callable[[Reals], Codes], x: npt.ArrayLike) -> Codes:
    """Apply an elementwise encoder to float64 pieces of `x`, so that big tensors stay cheap."""
    x = np.asarray(x)
    flat = x.reshape(-1)
    codes = np.empty(flat.size, np.uint8)
    for start in range(0, flat.size, _CHUNK):
        part = flat[start : start + _CHUNK].astype(np.float64)
        codes[start : start + _CHUNK] = function(part)
    return codes.reshape(x.shape)


def refuse_nan(x: Reals, name: str) -> None:
    """Raise where `x` has a NaN, which the format called `name` cannot hold."""
    if np.isnan(x).any():
        raise FewbitsError(
            "not-a-number",
            f"{name} cannot hold NaN",
            hint="check the weights: a NaN there is usually a failed training or export",
        )


def check_bits(bits: int, low: int, high: int, family: str) -> None:
    """Refuse a bit width outside `low` to `high`, before a table of that size is made."""
    if not low <= bits <= high:
        raise FewbitsError("bad-format", f"{family} formats have {low} to {high} bits, not {bits}")


@dataclasses.dataclass(frozen=True)
class Grid:
    """Sorted levels, the code of each, and the thresholds between them for a binary search."""

    levels: npt.NDArray[np.float64]
    codes: Codes
    thresholds: npt.NDArray[np.float64]

    def rank(self, x: Reals) -> npt.NDArray[np.integer]:
        """Index of the level nearest to each `x`, which holds no NaN."""
        if len(self.thresholds) > _FEW:
            return np.searchsorted(self.thresholds, x)
        rank = np.zeros(x.shape, np.uint8)
        above = np.empty(x.shape, np.bool_)
        for threshold in self.thresholds:
            np.greater(x, threshold, out=above)
            rank += above.view(np.uint8)
        return rank


def make_grid(levels: npt.NDArray[np.float64], codes: npt.NDArray[np.integer]) -> Grid:
    """The grid of ascending `levels` with these codes.

    A threshold is the midpoint, moved down by one float64 step where the tie goes up; so one
    search decides ties too.
    """
    middles = levels[:-1] + (levels[1:] - levels[:-1]) / 2
    tie_goes_up = (codes[:-1] % 2 == 1) & (codes[1:] % 2 == 0)
    thresholds = np.where(tie_goes_up, np.nextafter(middles, -np.inf), middles)
    return Grid(levels, codes.astype(np.uint8), thresholds)


@functools.lru_cache(maxsize=256)
def _grid(number_format: NumberFormat) -> Grid:
    values = number_format.values()
    finite = np.flatnonzero(np.isfinite(values))
    levels, first = np.unique(values[finite] + 0.0, return_index=True)
    levels.flags.writeable = False
    return make_grid(levels, finite[first])


@functools.lru_cache(maxsize=256)
def _values32(number_format: NumberFormat) -> npt.NDArray[np.float32]:
    values = number_format.values().astype(np.float32)
    values.flags.writeable = False
    return values
