"""Scales: how they are found for rows of values, and the few bits they are stored in.

A scale is one of a tensor's largest overheads at small blocks (16 bits per 64 values are a quarter
bit per weight), so its own storage is a choice, up to *double quantization*: scales as 8-bit
dynamic-tree codes around their mean (spec 3). Codes are always made with the scale as stored.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Literal

import ml_dtypes
import numpy as np
import numpy.typing as npt

from ..errors import FewbitsError, nearest
from .base import NumberFormat
from .dynamic import DynamicTree
from .granularity import PerBlock

Floats32 = npt.NDArray[np.float32]
ScaleStorage = Literal["float32", "float16", "bfloat16", "e8m0", "double"]

_DTYPES: dict[str, np.dtype] = {
    "float32": np.dtype(np.float32),
    "float16": np.dtype(np.float16),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
}
STORAGES = ("float32", "float16", "bfloat16", "e8m0", "double")
DOUBLE_BLOCK = PerBlock(256)
_DOUBLE_TREE = DynamicTree(8)
_SMALLEST = np.float32(2.0**-126)
# Of the multiples that a search tries first.
_STRIDE = 5


@dataclasses.dataclass(frozen=True, eq=False)
class StoredScales:
    """Scales as a file holds them.

    Attributes:
        storage: ``float32``, ``float16``, ``bfloat16``; ``e8m0``: a power of two, rounded up, in 8
            bits; ``double``: 8-bit dynamic codes in blocks of 256 around the mean.
        shape: of the scales.
        arrays: ``scales``, or for ``double`` ``codes``, ``block_scales`` and ``mean``.
    """

    storage: ScaleStorage
    shape: tuple[int, ...]
    arrays: dict[str, np.ndarray]

    def __post_init__(self) -> None:
        _check_storage(self.storage)
        count = math.prod(self.shape)
        expected = {"scales": count}
        if self.storage == "double":
            blocks = math.prod(DOUBLE_BLOCK.scale_shape(self.shape))
            expected = {"codes": count, "block_scales": blocks, "mean": 1}
        if {k: v.size for k, v in self.arrays.items()} != expected:
            raise FewbitsError("bad-scales", f"stored scales do not fit their shape {self.shape}")

    def values(self) -> Floats32:
        """The scales, positive: where 0 is stored (a block of zeros) the smallest normal float."""
        if self.storage == "double":
            codes = DOUBLE_BLOCK.rows(self.arrays["codes"].reshape(-1))
            rows = _DOUBLE_TREE.decode(codes) * self.arrays["block_scales"].reshape(-1, 1)
            flat = DOUBLE_BLOCK.from_rows(rows, (math.prod(self.shape),))
            scales = flat + self.arrays["mean"].reshape(())
        elif self.storage == "e8m0":
            exponents = self.arrays["scales"].astype(np.float64) - 127
            scales = np.exp2(exponents)
        else:
            scales = self.arrays["scales"].astype(np.float32)
        return np.maximum(scales.astype(np.float32), _SMALLEST).reshape(self.shape)

    @property
    def bits(self) -> int:
        """Exact bits of the stored arrays."""
        return 8 * sum(array.nbytes for array in self.arrays.values())


def store_scales(scales: npt.ArrayLike, storage: ScaleStorage = "float32") -> StoredScales:
    """Round scales, not negative, to what `storage` holds.

    Raises:
        FewbitsError: ``scale-overflow`` where one is NaN or larger than the storage can hold.
    """
    _check_storage(storage)
    exact = np.asarray(scales, np.float64)
    arrays: dict[str, np.ndarray]
    if not np.isfinite(exact).all() or (exact < 0).any():
        raise FewbitsError(
            "scale-overflow", "a scale is NaN, infinite or negative", hint="check the weights"
        )
    if storage == "double":
        mean = np.float32(exact.mean()) if exact.size else np.float32(0)
        rows = DOUBLE_BLOCK.rows((exact.reshape(-1) - mean).astype(np.float32))
        block_scales = absmax_scales(rows, 1.0).astype(np.float32)
        codes = _DOUBLE_TREE.encode(rows / np.maximum(block_scales, _SMALLEST)[:, None])
        flat = DOUBLE_BLOCK.from_rows(codes, (exact.size,))
        arrays = {"codes": flat, "block_scales": block_scales, "mean": mean.reshape(1)}
    elif storage == "e8m0":
        mantissa, exponent = np.frexp(exact)
        exponent = np.where(mantissa == 0.5, exponent - 1, exponent)
        exponent = np.where(exact > 0, exponent, -127)
        if exponent.size and exponent.max() > 127:
            raise FewbitsError("scale-overflow", "a scale exceeds 2^127")
        arrays = {"scales": (np.maximum(exponent, -127) + 127).astype(np.uint8)}
    else:
        dtype = _DTYPES[storage]
        largest = float(ml_dtypes.finfo(dtype).max)
        if exact.size and exact.max() > largest:
            raise FewbitsError(
                "scale-overflow", f"a scale of {exact.max():.3g} exceeds {storage}",
                hint="store the scales as float32",
            )  # fmt: skip
        # A tiny block keeps a scale: rounding it to 0 would turn its values into nothing.
        floor = np.where(exact > 0, float(ml_dtypes.finfo(dtype).smallest_subnormal), 0.0)
        arrays = {"scales": np.maximum(exact, floor).astype(dtype)}
    return StoredScales(storage, exact.shape, arrays)


def absmax_scales(rows: np.ndarray, reach: float) -> npt.NDArray[np.float64]:
    """Per row, the scale that puts its largest magnitude at `reach`; 0 for a row of zeros."""
    return np.abs(rows).max(axis=1, initial=0.0).astype(np.float64) / reach


def searched_scales(
    rows: np.ndarray,
    number_format: NumberFormat,
    *,
    low: float = 0.3,
    high: float = 1.2,
    step: float = 0.01,
    importance: np.ndarray | None = None,
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Per row, the scale of least squared error among multiples of the absmax scale.

    Args:
        rows: ``[rows, length]``.
        number_format: what the values become.
        low, high, step: the multiples, both ends included; see `search_multiples` for which of
            them are tried.
        importance: weights of the squared errors, like `rows`.

    Returns:
        Scales and summed squared errors, ``[rows]`` each.
    """
    if not 0 < low <= high or step <= 0 or (high - low) / step > 10_000:
        raise FewbitsError("bad-search", f"no search from {low} to {high} by {step}")
    whole = absmax_scales(rows, number_format.reach)

    def error(multiples: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        usable = np.maximum(whole * multiples, float(_SMALLEST)).astype(np.float32)[:, None]
        squares = (number_format.round(rows / usable) * usable - rows) ** 2
        if importance is not None:
            squares = squares * importance
        return squares.sum(axis=1, dtype=np.float64)

    multiples = low + step * np.arange(round((high - low) / step) + 1, dtype=np.float64)
    best, least = search_multiples(multiples, len(rows), error)
    return whole * best, least


def search_multiples(
    multiples: npt.NDArray[np.float64],
    rows: int,
    error: Callable[[npt.NDArray[np.float64]], npt.NDArray[np.float64]],
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Per row, the multiple of least error: every fifth first, then those around each row's best.

    The error of a row falls and rises with its scale once, but for noise. What this finds is within
    half a percent of trying them all at 4 bits (within 2.5 % at 8, in blocks of 64), in a third of
    the time.

    Args:
        multiples: ascending, ``[count]``.
        rows: how many rows.
        error: of a multiple for each row, ``[rows]`` to ``[rows]``.

    Returns:
        Multiples and their errors, ``[rows]`` each. Never worse than the multiple nearest to 1,
        the absmax scale.
    """
    last = len(multiples) - 1
    best = np.full(rows, np.argmin(np.abs(multiples - 1)))
    least = error(multiples[best])

    def attempt(places: npt.NDArray[np.intp]) -> None:
        nonlocal best, least
        found = error(multiples[places])
        best = np.where(found < least, places, best)
        least = np.minimum(found, least)

    for place in range(0, last + 1, _STRIDE):
        attempt(np.full(rows, place))
    center = best
    for offset in range(1, _STRIDE):
        attempt(np.maximum(center - offset, 0))
        attempt(np.minimum(center + offset, last))
    return multiples[best], least


def _check_storage(storage: str) -> None:
    if storage not in STORAGES:
        raise FewbitsError(
            "bad-scales", f"scales are not stored as {storage!r}", hint=nearest(storage, STORAGES)
        )
