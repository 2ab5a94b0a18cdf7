"""Scales of rows of values, found where the tensors are: largest magnitude, searched, affine.

The counterpart of `formats.scales` and `formats.compress` for solvers, which find scales on
weights that change as they go. The same candidates, the same rounding, on any device.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
from torch import Tensor

from ...errors import FewbitsError
from ...formats.affine import cover
from ...formats.base import NumberFormat
from ...formats.binary import BinaryCoding, fit_binary
from ...formats.integer import Integer
from ...formats.scales import store_scales
from .nearest import NearestLevel
from .options import SolverOptions

# Multiples of the absmax scale that are tried, as in `searched_scales` (spec 0.7).
_MULTIPLES = tuple(0.3 + 0.01 * k for k in range(91))


@dataclasses.dataclass(frozen=True, eq=False)
class Fitted:
    """What belongs to each of some rows.

    Attributes:
        exact: scales before they are stored, float64, ``[rows]`` or ``[rows, planes]``.
        stored: the same as stored and read back, float32 tensor.
        zero: zero points, float32 tensor ``[rows]``, or None.
    """

    exact: np.ndarray
    stored: Tensor
    zero: Tensor | None = None


def fit(rows: Tensor, options: SolverOptions, level: NearestLevel, importance: Tensor) -> Fitted:
    """Scales of `rows`.

    Args:
        rows: ``[count, length]`` float32, finite.
        options: format, kind of scale and how it is found and stored.
        level: of that format.
        importance: weights of the squared errors, ``[count, length]``, or broadcast to it.

    Raises:
        FewbitsError: ``unsigned-format``: negative values, no sign and no zero point.
    """
    number_format = options.number_format
    assert number_format is not None
    if isinstance(number_format, BinaryCoding):
        scales, _ = fit_binary(
            rows.cpu().numpy(),
            number_format.bits,
            importance=importance.expand(rows.shape).cpu().numpy(),
        )
        return Fitted(scales, _as_stored(scales, options, rows))
    if not options.symmetric:
        assert isinstance(number_format, Integer)
        return _fit_affine(rows, options, number_format, level, importance)
    if not number_format.signed and rows.numel() and float(rows.min()) < 0:
        raise FewbitsError(
            "unsigned-format", f"{number_format} has no negative levels and the tensor has",
            hint="take a signed format, or an integer with zero points",
        )  # fmt: skip
    whole = _absmax(rows, number_format)
    if not options.searches_scales:
        return Fitted(whole, _as_stored(whole, options, rows))
    best, least = whole, np.full(len(whole), np.inf)
    for multiple in _MULTIPLES:
        scales = _usable(torch.from_numpy(whole * multiple), rows)
        error = _error(level.round(rows / scales) * scales, rows, importance)
        best = np.where(error < least, whole * multiple, best)
        least = np.minimum(error, least)
    return Fitted(best, _as_stored(best, options, rows))


def _fit_affine(
    rows: Tensor, options: SolverOptions, integer: Integer, level: NearestLevel, importance: Tensor
) -> Fitted:
    """Scale and zero point; searched ones shrink the range to `multiple` of its ends."""
    low = rows.amin(dim=1).clamp(max=0).double().cpu().numpy()
    high = rows.amax(dim=1).clamp(min=0).double().cpu().numpy()
    multiples = [m for m in _MULTIPLES if m <= 1] if options.searches_scales else [1.0]
    best: tuple[np.ndarray, np.ndarray] | None = None
    least = np.full(len(low), np.inf)
    for multiple in multiples:
        exact, _ = cover(low * multiple, high * multiple, integer.minimum, integer.maximum)
        scales = store_scales(exact, options.scale_storage).values()
        # The zero point belongs to the scale as stored.
        zero = integer.round(np.rint(integer.minimum - low * multiple / scales.astype(np.float64)))
        step = torch.from_numpy(scales).to(rows.device)[:, None]
        shift = torch.from_numpy(zero).to(rows.device)[:, None]
        rounded = (level.round((rows / step).round() + shift) - shift) * step
        error = _error(rounded, rows, importance)
        if best is None:
            best, least = (exact, zero), error
        else:
            better = error < least
            best = (np.where(better, exact, best[0]), np.where(better, zero, best[1]))
            least = np.minimum(error, least)
    assert best is not None
    zeros = torch.from_numpy(best[1].astype(np.float32)).to(rows.device)
    return Fitted(best[0], _as_stored(best[0], options, rows), zeros)


def _absmax(rows: Tensor, number_format: NumberFormat) -> np.ndarray:
    largest = rows.abs().amax(dim=1) if rows.shape[1] else rows.new_zeros(len(rows))
    return largest.double().cpu().numpy() / number_format.reach


def _as_stored(exact: np.ndarray, options: SolverOptions, like: Tensor) -> Tensor:
    return torch.from_numpy(store_scales(exact, options.scale_storage).values()).to(like.device)


def _usable(scales: Tensor, like: Tensor) -> Tensor:
    return scales.clamp(min=2.0**-126).to(like.device, torch.float32)[:, None]


def _error(rounded: Tensor, rows: Tensor, importance: Tensor) -> np.ndarray:
    squares = (rounded - rows) ** 2 * importance
    return squares.sum(dim=1, dtype=torch.float64).cpu().numpy()
