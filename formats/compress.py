"""From a float tensor to a compressed one by rounding: scales first, then the nearest codes.

Solvers that do better than rounding to nearest (GPTQ and its kin) live with the passes and hand
their codes to `CompressedTensor.from_codes`.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt

from ..errors import FewbitsError
from .affine import cover
from .base import Codes, NumberFormat
from .binary import BinaryCoding, fit_binary
from .compressed import CompressedTensor
from .granularity import Granularity, PerTensor
from .integer import Integer
from .scales import ScaleStorage, absmax_scales, searched_scales, store_scales
from .sparsity import Dense, Mask, Sparsity

Method = Literal["absmax", "mse", "affine", "greedy", "alternating"]
Floats32 = npt.NDArray[np.float32]


def compress(
    x: npt.ArrayLike,
    number_format: NumberFormat,
    *,
    granularity: Granularity | None = None,
    sparsity: Sparsity | None = None,
    mask: Mask | None = None,
    scale_storage: ScaleStorage = "float32",
    method: Method | None = None,
    importance: npt.ArrayLike | None = None,
) -> CompressedTensor:
    """The tensor in `number_format`, each value rounded to the nearest level.

    Args:
        x: finite reals of any shape.
        number_format: levels of the values after scaling.
        granularity: which values share a scale; the whole tensor by default.
        sparsity: which values are stored; all by default.
        mask: the values to keep, shape of `x`; by default those that are not 0.
        scale_storage: see `StoredScales`.
        method: how scales are found. ``absmax`` (default): the largest magnitude becomes the
            outermost level. ``mse``: the multiple 0.3 to 1.2 of that with least squared error.
            ``affine``: scale and zero point from minimum and maximum, for integers. For binary
            coding ``alternating`` (default) or ``greedy``.
        importance: weights of squared errors, shape of `x`; for ``mse`` and ``alternating``.

    Raises:
        FewbitsError: ``not-a-number``: NaN or infinity in `x`. ``bad-method``: not for this format.
            ``unsigned-format``: negative values and no zero point. ``bad-sparsity``,
            ``bad-granularity``, ``scale-overflow``: from the parts.
    """
    values = np.asarray(x, np.float32)
    granularity, sparsity = granularity or PerTensor(), sparsity or Dense()
    if not np.isfinite(values).all():
        raise FewbitsError(
            "not-a-number", f"{int((~np.isfinite(values)).sum())} values are NaN or infinite",
            hint="check the weights: usually a failed training or export",
        )  # fmt: skip
    method = _check_method(number_format, method)
    if mask is not None:
        _check_mask(mask, values, sparsity)
        values = np.where(mask, values, np.float32(0))
    stored = sparsity.complete(values != 0 if mask is None else mask)
    rows = granularity.rows(values)
    scale_shape = granularity.scale_shape(values.shape)
    weights = _weights(granularity, values, stored, importance)
    zero_points = None
    if isinstance(number_format, BinaryCoding):
        rounds = 0 if method == "greedy" else 15
        fitted, _ = fit_binary(rows, number_format.bits, importance=weights, rounds=rounds)
        scales = store_scales(fitted.reshape(*scale_shape, number_format.bits), scale_storage)
        code_rows = _nearest_sums(rows, number_format, scales.values())
    elif method == "affine":
        assert isinstance(number_format, Integer)
        low, high = rows.min(axis=1, initial=0), rows.max(axis=1, initial=0)
        exact, _ = cover(low, high, number_format.minimum, number_format.maximum)
        scales = store_scales(exact.reshape(scale_shape), scale_storage)
        steps = scales.values().reshape(-1).astype(np.float64)
        # The zero point belongs to the scale as stored.
        zero = np.rint(number_format.minimum - low / steps)
        zero_points = number_format.encode(zero).reshape(scale_shape)
        zero = number_format.decode(zero_points).reshape(-1, 1)
        code_rows = number_format.encode(np.rint(_divide(rows, scales.values())) + zero)
    else:
        if not number_format.signed and values.size and values.min() < 0:
            raise FewbitsError(
                "unsigned-format", f"{number_format} has no negative levels and the tensor has",
                hint="take a signed format, or method 'affine' with an integer",
            )  # fmt: skip
        if method == "mse":
            exact, _ = searched_scales(rows, number_format, importance=weights)
        else:
            exact = absmax_scales(rows, number_format.reach)
        scales = store_scales(exact.reshape(scale_shape), scale_storage)
        code_rows = number_format.encode(_divide(rows, scales.values()))
    codes = granularity.from_rows(code_rows, values.shape)
    return CompressedTensor.from_codes(
        codes, number_format, granularity, scales,
        sparsity=sparsity, mask=stored, zero_points=zero_points,
    )  # fmt: skip


def _divide(rows: Floats32, scales: Floats32) -> Floats32:
    with np.errstate(over="ignore"):
        return rows / scales.reshape(-1, 1)


def _nearest_sums(rows: Floats32, binary: BinaryCoding, scales: Floats32) -> Codes:
    """Codes under the scales as stored, which differ a little from those that were fitted."""
    sums = binary.sums(scales).reshape(rows.shape[0], -1)
    codes = np.zeros(rows.shape, np.uint8)
    best = np.abs(rows - sums[:, :1])
    for code in range(1, sums.shape[1]):
        distance = np.abs(rows - sums[:, code : code + 1])
        codes[distance < best] = code
        best = np.minimum(best, distance)
    return codes


def _check_method(number_format: NumberFormat, method: Method | None) -> Method:
    binary = isinstance(number_format, BinaryCoding)
    if method is None:
        return "alternating" if binary else "absmax"
    if binary:
        allowed = ("alternating", "greedy")
    elif isinstance(number_format, Integer):
        allowed = ("absmax", "mse", "affine")
    else:
        allowed = ("absmax", "mse")
    if method not in allowed:
        raise FewbitsError(
            "bad-method", f"{number_format} does not take the method {method!r}",
            hint=f"one of {', '.join(allowed)}",
        )  # fmt: skip
    return method


def _check_mask(mask: Mask, values: Floats32, sparsity: Sparsity) -> None:
    if mask.shape != values.shape or mask.dtype != np.bool_:
        raise FewbitsError("bad-sparsity", "the mask is not boolean of the tensor's shape")
    if isinstance(sparsity, Dense):
        raise FewbitsError("bad-sparsity", "a mask without a sparsity that stores it")


def _weights(
    granularity: Granularity, values: Floats32, stored: Mask, importance: npt.ArrayLike | None
) -> npt.NDArray[np.floating]:
    """Importance as rows; 0 for what is not stored and for the padding of short groups."""
    given = np.ones(values.shape) if importance is None else np.asarray(importance, np.float64)
    if given.shape != values.shape or (given < 0).any():
        raise FewbitsError("bad-importance", "importance is not negative, of the tensor's shape")
    return granularity.rows(np.where(stored, given, 0.0))
