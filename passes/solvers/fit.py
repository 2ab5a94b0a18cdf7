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
from ...formats.scales import search_multiples, store_scales
from .nearest import NearestLevel
from .options import SolverOptions

# Multiples of the absmax scale, as in `searched_scales` (spec 0.7).
_MULTIPLES = 0.3 + 0.01 * np.arange(91, dtype=np.float64)
_SHRINKING = _MULTIPLES[:71]
# Values that are fitted at a time: they stay in a core's cache.
_TOGETHER = 1 << 15


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
    count = max(1, _TOGETHER // max(rows.shape[1], 1))
    # Doubly quantized scales depend on each other.
    alone = options.searches_scales and options.scale_storage != "double"
    if alone and rows.device.type == "cpu" and len(rows) > count:
        importance = importance.expand(rows.shape)
        pieces = zip(rows.split(count), importance.split(count), strict=True)
        return _joined([fit(piece, options, level, weights) for piece, weights in pieces])
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

    def error(multiples: np.ndarray) -> np.ndarray:
        scales = _usable(torch.from_numpy(whole * multiples), rows)
        return _error(level.round(rows / scales).mul_(scales), rows, importance)

    best, _ = search_multiples(_MULTIPLES, len(rows), error)
    return Fitted(whole * best, _as_stored(whole * best, options, rows))


def _fit_affine(
    rows: Tensor, options: SolverOptions, integer: Integer, level: NearestLevel, importance: Tensor
) -> Fitted:
    """Scale and zero point; searched ones shrink the range to `multiple` of its ends."""
    low = rows.amin(dim=1).clamp(max=0).double().cpu().numpy()
    high = rows.amax(dim=1).clamp(min=0).double().cpu().numpy()

    def ends(multiples: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Scales, scales as stored, and zero points, which belong to those."""
        exact, _ = cover(low * multiples, high * multiples, integer.minimum, integer.maximum)
        scales = store_scales(exact, options.scale_storage).values()
        zero = integer.minimum - low * multiples / scales.astype(np.float64)
        return exact, scales, integer.round(np.rint(zero))

    def error(multiples: np.ndarray) -> np.ndarray:
        _, scales, zero = ends(multiples)
        step = torch.from_numpy(scales).to(rows.device)[:, None]
        shift = torch.from_numpy(zero).to(rows.device)[:, None]
        rounded = level.round((rows / step).round_().add_(shift)).sub_(shift).mul_(step)
        return _error(rounded, rows, importance)

    best = np.ones(len(rows))
    if options.searches_scales:
        best, _ = search_multiples(_SHRINKING, len(rows), error)
    exact, scales, zero = ends(best)
    stored = torch.from_numpy(scales).to(rows.device)
    return Fitted(exact, stored, torch.from_numpy(zero.astype(np.float32)).to(rows.device))


def _joined(parts: list[Fitted]) -> Fitted:
    zeros = [part.zero for part in parts if part.zero is not None]
    return Fitted(
        np.concatenate([part.exact for part in parts]),
        torch.cat([part.stored for part in parts]),
        torch.cat(zeros) if zeros else None,
    )


def _absmax(rows: Tensor, number_format: NumberFormat) -> np.ndarray:
    largest = rows.abs().amax(dim=1) if rows.shape[1] else rows.new_zeros(len(rows))
    return largest.double().cpu().numpy() / number_format.reach


def _as_stored(exact: np.ndarray, options: SolverOptions, like: Tensor) -> Tensor:
    return torch.from_numpy(store_scales(exact, options.scale_storage).values()).to(like.device)


def _usable(scales: Tensor, like: Tensor) -> Tensor:
    return scales.clamp(min=2.0**-126).to(like.device, torch.float32)[:, None]


def _error(rounded: Tensor, rows: Tensor, importance: Tensor) -> np.ndarray:
    """Weighted squared error of each row; `rounded` is used up."""
    squares = rounded.sub_(rows).square_().mul_(importance)
    return squares.sum(dim=1, dtype=torch.float64).cpu().numpy()
