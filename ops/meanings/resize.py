"""Resizing of images: every method is separable, one interpolation matrix an axis."""

from __future__ import annotations

import functools

import numpy as np
import torch

from ...errors import FewbitsError
from ..registry import meaning
from .common import Call, is_integer, relayout, torch_dtype

Tensor = torch.Tensor
_SPACE = {2: "NCHW", 3: "NCDHW"}


def _sources(size: int, target: int, mode: str, start: float, end: float) -> np.ndarray:
    """Where on the input axis each output element lies, float32 [target]."""
    x = np.arange(target, dtype=np.float32)
    scale = np.float32(size) / np.float32(target)
    half = np.float32(0.5)
    if mode == "half_pixel":
        return (x + half) * scale - half
    if mode == "pytorch_half_pixel":
        return (x + half) * scale - half if target > 1 else np.zeros(1, np.float32)
    if mode == "align_corners":
        return x * (np.float32(size - 1) / np.float32(target - 1)) if target > 1 else x
    if mode == "asymmetric":
        return x * scale
    if mode == "tf_half_pixel_for_nn":
        return (x + half) * scale
    if mode == "tf_crop_and_resize":
        first, last = np.float32(start), np.float32(end)
        if target == 1:
            return np.array([half * (first + last) * np.float32(size - 1)], np.float32)
        step = (last - first) * np.float32(size - 1) / np.float32(target - 1)
        return first * np.float32(size - 1) + x * step
    raise FewbitsError("unsupported-attribute", f"coordinate mode {mode} is unknown")


def _nearest(source: np.ndarray, rounding: str, mode: str) -> np.ndarray:
    if not rounding:
        rounding = "round" if mode == "align_corners" else "floor"
    if rounding == "round":
        return np.rint(source)
    if rounding == "round_prefer_floor":
        return np.ceil(source - np.float32(0.5))
    if rounding == "round_prefer_ceil":
        return np.floor(source + np.float32(0.5))
    if rounding == "floor":
        return np.floor(source)
    if rounding == "ceil":
        return np.ceil(source)
    raise FewbitsError("unsupported-attribute", f"rounding method {rounding} is unknown")


@functools.lru_cache(maxsize=256)
def interpolation(
    size: int,
    target: int,
    method: str,
    mode: str,
    rounding: str,
    alpha: float,
    exclude: bool,
    start: float,
    end: float,
) -> tuple[np.ndarray, np.ndarray]:
    """One axis' matrix, float32 [target, size], and which outputs lie inside, bool [target]."""
    source = _sources(size, target, mode, start, end)
    inside = (source >= 0) & (source <= size - 1)
    base = np.floor(source)
    t = (source - base).astype(np.float32)
    if method == "nearest_neighbor":
        base, taps = _nearest(source, rounding, mode), [np.ones(target, np.float32)]
        offsets = [0]
    elif method == "linear":
        taps, offsets = [1 - t, t], [0, 1]
    elif method == "cubic":
        a, t2, t3 = np.float32(alpha), t * t, t * t * t
        taps = [
            a * (t3 - 2 * t2 + t),
            (a + 2) * t3 - (3 + a) * t2 + 1,
            -(a + 2) * t3 + (3 + 2 * a) * t2 - a * t,
            -a * t3 + a * t2,
        ]
        offsets = [-1, 0, 1, 2]
    else:
        raise FewbitsError("unsupported-attribute", f"resize method {method} is unknown")
    matrix = np.zeros((target, size), np.float32)
    total = np.zeros(target, np.float32)
    rows = np.arange(target)
    for offset, weight in zip(offsets, taps, strict=True):
        index = base + offset
        if method == "cubic" and exclude:
            weight = np.where((index >= 0) & (index < size), weight, 0).astype(np.float32)
        total += weight
        np.add.at(matrix, (rows, np.clip(index, 0, size - 1).astype(int)), weight)
    if method == "cubic" and exclude:
        matrix /= total[:, None]
    return matrix, inside


@meaning("relax.image.resize2d", "relax.image.resize3d")
def resize(call: Call, data: Tensor, size: tuple[int, ...]) -> Tensor:
    """Nearest, linear or cubic; beyond the image the edge repeats, or with
    ``tf_crop_and_resize`` the extrapolation value stands."""
    attrs = call.attrs
    rank = len(size)
    plain = _SPACE[rank]
    x = relayout(data, attrs.layout, plain)
    x = x.to(torch.float64) if is_integer(x) else x
    method, mode = str(attrs.method), str(attrs.coordinate_transformation_mode)
    roi = [float(value) for value in attrs.roi] or [0.0] * (2 * rank)
    for axis, target in enumerate(size):
        matrix, inside = interpolation(
            x.shape[2 + axis],
            int(target),
            method,
            mode,
            str(attrs.rounding_method),
            float(attrs.cubic_alpha),
            bool(attrs.cubic_exclude),
            roi[axis],
            roi[rank + axis],
        )
        if method == "nearest_neighbor":
            index = torch.from_numpy(matrix.argmax(1)).to(x.device)
            x = torch.index_select(x, 2 + axis, index)
        else:
            weights = torch.from_numpy(matrix).to(x)
            x = torch.matmul(x.movedim(2 + axis, -1), weights.T).movedim(-1, 2 + axis)
        if mode == "tf_crop_and_resize" and not inside.all():
            shape = [1] * x.dim()
            shape[2 + axis] = -1
            mask = torch.from_numpy(inside).to(x.device).reshape(shape)
            x = torch.where(mask, x, float(attrs.extrapolation_value))
    kind = torch_dtype(attrs.out_dtype) if attrs.out_dtype else data.dtype
    if is_integer(data) and not kind.is_floating_point:
        x = torch.trunc(x)
    return relayout(x.to(kind), plain, attrs.layout)
