"""Resize, by what it is: one constant linear map per axis.

Bilinear resizing of images in the usual modes is Relax's own operator. For the rest, nearest picks
elements by constant indices, linear and cubic multiply by a constant matrix with a few taps per
row. That covers every coordinate mode, antialiasing and cropping exactly, and leaves operators
that every back end has.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from tvm import relax

from ..limits import check_extents
from ..node import Node, Result
from ..values import constant, static_shape

op: Any = relax.op


def _resize(node: Node) -> Result:
    shape = node.shape(0)
    axes = [node.normalize_axis(a) for a in node.ints("axes", None) or range(len(shape))]
    sizes, scales = _target(node, axes)
    region = _region(node, axes)
    mode = node.string("mode", "nearest")
    if mode not in ("nearest", "linear", "cubic"):
        raise node.error("invalid-node", f"mode = {mode!r}")
    x = node[0]
    if mode == "linear" and (image := _image(node, axes, sizes, scales)) is not None:
        return image
    for position, axis in enumerate(axes):
        size, scale = sizes[position], scales[position]
        check_extents([size, shape[axis] if mode != "nearest" else 1], "float64", node.where)
        cropping = node.string("coordinate_transformation_mode", "half_pixel")
        if size == shape[axis] and scale == 1.0 and cropping != "tf_crop_and_resize":
            continue
        where = _coordinates(node, shape[axis], size, scale, region.get(axis, (0.0, 1.0)))
        x = node.emit(_along(node, x, axis, mode, where, scale))
    return x


#: Coordinate modes in which only the extents matter.
_PLAIN_MODES = ("half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric")


def _image(node: Node, axes: list[int], sizes: list[int], scales: list[float]) -> relax.Expr | None:
    """`image.resize2d` for the height and width of an NCHW image; None where it differs."""
    shape, wanted = node.shape(0), dict(zip(axes, sizes, strict=True))
    mode = node.string("coordinate_transformation_mode", "half_pixel")
    if len(shape) != 4 or mode not in _PLAIN_MODES or node.dtype() != "float32":
        return None
    if node.int("antialias", 0) or node.int("exclude_outside", 0):
        return None
    for axis, size, scale in zip(axes, sizes, scales, strict=True):
        if size != shape[axis] * scale or (axis < 2 and size != shape[axis]):
            return None
    height, width = (wanted.get(axis, shape[axis]) for axis in (2, 3))
    check_extents([height, width], "float64", node.where)
    return op.image.resize2d(
        node[0],
        (height, width),
        layout="NCHW",
        method="linear",
        coordinate_transformation_mode=mode,
    )


def _target(node: Node, axes: list[int]) -> tuple[list[int], list[float]]:
    """Result extents and scales of the resized axes."""
    extents = [node.shape(0)[axis] for axis in axes]
    if node.has(2) and node.known(2, "the scales").size:
        scales = [float(s) for s in node.known(2, "the scales").reshape(-1)]
        if len(scales) != len(axes) or any(not s > 0 or math.isinf(s) for s in scales):
            raise node.error("invalid-node", f"scales = {scales}")
        return [math.floor(e * s) for e, s in zip(extents, scales, strict=True)], scales
    sizes = node.known_ints(3, "the sizes")
    if len(sizes) != len(axes) or any(size < 1 for size in sizes):
        raise node.error("invalid-node", f"sizes = {sizes}")
    scales = [size / e for size, e in zip(sizes, extents, strict=True)]
    policy = node.string("keep_aspect_ratio_policy", "stretch")
    if policy != "stretch":
        scale = min(scales) if policy == "not_larger" else max(scales)
        scales = [scale] * len(axes)
        sizes = [math.floor(scale * e + 0.5) for e in extents]
    return sizes, scales


def _region(node: Node, axes: list[int]) -> dict[int, tuple[float, float]]:
    """`roi`: the part of each axis that tf_crop_and_resize shows."""
    if node.string("coordinate_transformation_mode", "half_pixel") != "tf_crop_and_resize":
        return {}
    roi = node.known(1, "the roi").reshape(-1)
    if roi.size != 2 * len(axes):
        raise node.error("invalid-node", f"roi has {roi.size} values for {len(axes)} axes")
    return {a: (float(roi[i]), float(roi[i + len(axes)])) for i, a in enumerate(axes)}


def _coordinates(
    node: Node, extent: int, size: int, scale: float, region: tuple[float, float]
) -> np.ndarray:
    """For each element of the result, where it lies in the input (float64 [size]).

    As in the standard, `length` is extent * scale without rounding, also where the result's
    extent is that rounded down.
    """
    i, length = np.arange(size, dtype=np.float64), extent * scale
    mode = node.string("coordinate_transformation_mode", "half_pixel")
    if mode == "half_pixel":
        return (i + 0.5) / scale - 0.5
    if mode == "half_pixel_symmetric":
        return extent / 2 * (1 - size / length) + (i + 0.5) / scale - 0.5
    if mode == "pytorch_half_pixel":
        return (i + 0.5) / scale - 0.5 if size > 1 else np.zeros(size)
    if mode == "align_corners":
        return i * (extent - 1) / (length - 1) if size > 1 else np.zeros(size)
    if mode == "asymmetric":
        return i / scale
    if mode == "tf_crop_and_resize":
        start, end = region
        if size > 1:
            return start * (extent - 1) + i * (end - start) * (extent - 1) / (length - 1)
        return np.full(size, 0.5 * (start + end) * (extent - 1))
    raise node.error("invalid-node", f"coordinate_transformation_mode = {mode!r}")


def _along(
    node: Node, x: relax.Expr, axis: int, mode: str, where: np.ndarray, scale: float
) -> relax.Expr:
    extent = static_shape(x)[axis]
    outside = np.zeros(len(where), dtype=bool)
    if node.string("coordinate_transformation_mode", "half_pixel") == "tf_crop_and_resize":
        outside = (where < 0) | (where > extent - 1)
    if mode == "nearest":
        indices = np.clip(_nearest(node, where), 0, extent - 1).astype("int64")
        result = op.take(x, constant(indices), axis, mode="clip")
    else:
        matrix = _matrix(node, mode, where, scale, extent)
        matrix[outside] = 0
        result = _apply(x, matrix.astype(node.dtype()), axis)
    if not outside.any():
        return result
    shape = [1] * len(static_shape(x))
    shape[axis] = len(where)
    filling = node.scalar(node.float("extrapolation_value", 0.0))
    return op.where(constant(outside.reshape(shape)), filling, result)


def _nearest(node: Node, where: np.ndarray) -> np.ndarray:
    mode = node.string("nearest_mode", "round_prefer_floor")
    if mode == "round_prefer_floor":
        return np.ceil(where - 0.5)
    if mode == "round_prefer_ceil":
        return np.floor(where + 0.5)
    if mode in ("floor", "ceil"):
        return np.floor(where) if mode == "floor" else np.ceil(where)
    raise node.error("invalid-node", f"nearest_mode = {mode!r}")


def _apply(x: relax.Expr, matrix: np.ndarray, axis: int) -> relax.Expr:
    """`matrix` [out, in] times the axis."""
    rank = len(static_shape(x))
    if axis == rank - 2:
        return op.matmul(constant(matrix), x)
    right = constant(np.ascontiguousarray(matrix.T))
    if axis == rank - 1:
        return op.matmul(x, right)
    order = list(range(rank))
    order[axis], order[-1] = order[-1], order[axis]
    return op.permute_dims(op.matmul(op.permute_dims(x, order), right), order)


def _matrix(node: Node, mode: str, where: np.ndarray, scale: float, extent: int) -> np.ndarray:
    """The weights [out, in] of linear or cubic interpolation; borders repeat the edge."""
    stretch = min(scale, 1.0) if node.int("antialias", 0) else 1.0
    radius = (1.0 if mode == "linear" else 2.0) / stretch
    first = np.floor(where - radius).astype(int) + (0 if stretch < 1.0 else 1)
    count = int(np.ceil(2 * radius)) + (1 if stretch < 1.0 else 0)
    taps = first[:, None] + np.arange(count)
    distance = (taps - where[:, None]) * stretch
    if mode == "linear":
        weights = np.maximum(0.0, 1.0 - np.abs(distance))
    else:
        weights = _cubic(distance, node.float("cubic_coeff_a", -0.75))
    if node.int("exclude_outside", 0):
        weights = np.where((taps >= 0) & (taps < extent), weights, 0.0)
    if node.int("exclude_outside", 0) or stretch < 1.0:
        weights = weights / weights.sum(1, keepdims=True)
    matrix = np.zeros((len(where), extent))
    rows = np.repeat(np.arange(len(where)), count)
    np.add.at(matrix, (rows, np.clip(taps, 0, extent - 1).reshape(-1)), weights.reshape(-1))
    return matrix


def _cubic(distance: np.ndarray, a: float) -> np.ndarray:
    """Keys' kernel."""
    d = np.abs(distance)
    inner = ((a + 2) * d - (a + 3)) * d * d + 1
    outer = ((a * d - 5 * a) * d + 8 * a) * d - 4 * a
    return np.where(d <= 1, inner, np.where(d < 2, outer, 0.0))


CONVERTERS = {"Resize": _resize}
