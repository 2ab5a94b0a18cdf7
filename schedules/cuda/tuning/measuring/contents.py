"""Arrays made where they are needed: a plan holds recipes for them, not gigabytes.

The contents are random but those of every run: equal seeds give equal arrays.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from .plan import Argument

#: What results hold before a kernel runs: no number that one would write by accident.
POISON = 0xA5


def dtype_of(name: str) -> np.dtype[Any]:
    """numpy's type; bfloat16 and FP8 are ml_dtypes'."""
    try:
        return np.dtype(name)
    except TypeError:
        import ml_dtypes

        return np.dtype(getattr(ml_dtypes, name))


def array(argument: Argument, random: np.random.Generator, folder: Path = Path()) -> np.ndarray:
    """An argument's array.

    ``fill["kind"]`` is one of: ``uniform`` (numbers from ``low`` to ``high``), ``integers`` (the
    same, whole, both ends included), ``magnitudes`` (from 1 on, of up to ``bits`` bits, all
    lengths alike), ``bits`` (any), ``exactly`` (``values``), ``repeat`` (each of ``pieces``
    ``times`` times, one after the other), ``file`` (the bytes of file ``name``), ``result``
    (`POISON`).

    Args:
        argument: the recipe.
        random: where numbers come from.
        folder: of files.

    Raises:
        ValueError: no such kind, or a file of another size.
    """
    fill, shape, dtype = argument.fill, argument.shape, dtype_of(argument.dtype)
    kind = fill["kind"]
    if kind == "uniform":
        low, high = float(fill["low"]), float(fill["high"])
        return (random.random(shape, np.float32) * (high - low) + low).astype(dtype)
    if kind == "integers":
        return random.integers(fill["low"], fill["high"] + 1, shape).astype(dtype)
    if kind == "magnitudes":
        return np.exp2(random.random(shape) * fill["bits"]).astype(dtype)
    if kind == "bits":
        count = int(np.prod(shape)) * dtype.itemsize
        return np.frombuffer(random.bytes(count), dtype).reshape(shape)
    if kind == "exactly":
        return np.array(fill["values"], dtype).reshape(shape)
    if kind == "repeat":
        return _repeated(fill, dtype).reshape(shape)
    if kind == "file":
        return np.fromfile(folder / Path(fill["name"]).name, dtype).reshape(shape)
    if kind == "result":
        count = int(np.prod(shape)) * dtype.itemsize
        return np.full(count, POISON, np.uint8).view(dtype).reshape(shape)
    raise ValueError(f"no array is {kind!r}")


def _repeated(fill: Mapping[str, Any], dtype: np.dtype[Any]) -> np.ndarray:
    pieces = [np.tile(np.array(piece, dtype), int(fill["times"])) for piece in fill["pieces"]]
    return np.concatenate(pieces)


def distance(expected: np.ndarray, found: np.ndarray) -> float:
    """The largest difference, as a share of the largest expected number; NaN equals NaN.

    Integers are compared as such: any difference of two of them is more than 0.
    """
    largest, apart = 0.0, 0.0
    rows = max(1, (1 << 22) // max(1, expected[0].size if expected.ndim else 1))
    for start in range(0, len(expected), rows):
        # numpy says that FP8 numbers have no NaN, and compares them all the same.
        ours = expected[start : start + rows].astype(np.float64)
        theirs = found[start : start + rows].astype(np.float64)
        finite = np.isfinite(ours)
        largest = max(largest, float(np.abs(ours[finite]).max(initial=0)))
        same = (ours == theirs) | (np.isnan(ours) & np.isnan(theirs))
        difference = np.abs(ours[~same] - theirs[~same])
        apart = max(
            apart, float(np.nan_to_num(difference, nan=np.inf, posinf=np.inf).max(initial=0))
        )
    return apart / max(largest, 1e-30)
