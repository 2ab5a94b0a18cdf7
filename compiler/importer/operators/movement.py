"""Operators that move data without computing anything: orders, joints, paddings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from tvm import relax

from ....ops.symbolic import Extent
from ..limits import check_extents
from ..node import Node, Result
from ..values import constant, static_shape
from .slicing import slice_axes

op: Any = relax.op


def _transpose(node: Node) -> Result:
    rank = node.rank()
    order = node.ints("perm", None)
    order = list(reversed(range(rank))) if order is None else order
    if sorted(order) != list(range(rank)):
        raise node.error("invalid-node", f"perm = {order} for rank {rank}")
    return op.permute_dims(node[0], order)


def _concat(node: Node) -> Result:
    axis = node.axis("axis", 0)
    parts = [i for i in range(len(node.inputs)) if not _is_empty(node.extents(i))]
    if len(parts) == 1:
        return node[parts[0]]
    return op.concat([node[i] for i in parts], axis)


def _is_empty(extents: Sequence[Extent]) -> bool:
    return any(isinstance(extent, int) and extent == 0 for extent in extents)


def _pad(node: Node) -> Result:
    """Constant padding is an operator; the other modes pick elements by constant indices."""
    shape, mode = node.shape(0), node.string("mode", "constant")
    pads = node.known_ints(1, "the pads")
    axes = node.known_ints(3, "the axes") if node.has(3) else list(range(len(shape)))
    axes = [node.normalize_axis(axis) for axis in axes]
    if len(pads) != 2 * len(axes):
        raise node.error("invalid-node", f"{len(pads)} pads for {len(axes)} axes")
    before = dict(zip(axes, pads[: len(axes)], strict=True))
    after = dict(zip(axes, pads[len(axes) :], strict=True))
    x = _cut(node, before, after)
    growth = {a: (max(before[a], 0), max(after[a], 0)) for a in axes}
    growth = {a: amounts for a, amounts in growth.items() if any(amounts)}
    if not growth:
        return x
    if mode == "constant":
        value = float(node.known(2, "the padding value").reshape(())) if node.has(2) else 0.0
        widths = [amount for axis in range(len(shape)) for amount in growth.get(axis, (0, 0))]
        return op.nn.pad(x, widths, "constant", value)
    if mode not in ("reflect", "edge", "wrap"):
        raise node.error("invalid-node", f"mode = {mode!r}")
    x = node.emit(x)
    padded = [static_shape(x)[axis] + sum(amounts) for axis, amounts in growth.items()]
    check_extents(padded, "int64", node.where)
    for axis, amounts in growth.items():
        indices = np.pad(np.arange(static_shape(x)[axis]), amounts, mode=mode)  # type: ignore[arg-type]
        x = op.take(x, constant(indices.astype("int64")), axis, mode="clip")
        x = node.emit(x) if axis != list(growth)[-1] else x
    return x


def _cut(node: Node, before: dict[int, int], after: dict[int, int]) -> relax.Expr:
    """Negative pads cut."""
    axes = [axis for axis in before if before[axis] < 0 or after[axis] < 0]
    if not axes:
        return node[0]
    shape = node.shape(0)
    starts = [max(-before[axis], 0) for axis in axes]
    stops = [shape[axis] - max(-after[axis], 0) for axis in axes]
    if any(start >= stop for start, stop in zip(starts, stops, strict=True)):
        raise node.error("empty-tensor", "negative pads cut everything")
    return slice_axes(node[0], axes, starts, stops, [1] * len(axes))


def _depth_to_space(node: Node) -> Result:
    n, channels, height, width = _image(node)
    block = node.int("blocksize", 0)
    if block < 1 or channels % block**2:
        raise node.error("invalid-node", f"{channels} channels, blocksize {block}")
    rest = channels // block**2
    if node.string("mode", "DCR") == "DCR":
        split, order = (n, block, block, rest, height, width), [0, 3, 4, 1, 5, 2]
    else:
        split, order = (n, rest, block, block, height, width), [0, 1, 4, 2, 5, 3]
    moved = op.permute_dims(op.reshape(node[0], split), order)
    return op.reshape(moved, (n, rest, height * block, width * block))


def _space_to_depth(node: Node) -> Result:
    n, channels, height, width = _image(node)
    block = node.int("blocksize", 0)
    if block < 1 or height % block or width % block:
        raise node.error("invalid-node", f"an image of {height}x{width}, blocksize {block}")
    split = (n, channels, height // block, block, width // block, block)
    dcr = node.string("mode", "DCR") == "DCR"
    moved = op.permute_dims(
        op.reshape(node[0], split), [0, 3, 5, 1, 2, 4] if dcr else [0, 1, 3, 5, 2, 4]
    )
    return op.reshape(moved, (n, channels * block**2, height // block, width // block))


def _image(node: Node) -> tuple[int, int, int, int]:
    shape = node.shape(0)
    if len(shape) != 4:
        raise node.error("invalid-node", f"{node.operator} of a tensor of rank {len(shape)}")
    n, channels, height, width = shape
    return n, channels, height, width


def _triangle(node: Node) -> Result:
    diagonal = int(node.known(1, "the diagonal k").reshape(())) if node.has(1) else 0
    function = op.triu if node.int("upper", 1) else op.tril
    return function(node[0], diagonal)


def _cumulative_sum(node: Node) -> Result:
    axis = node.normalize_axis(int(node.known(1, "the axis").reshape(())))
    exclusive = bool(node.int("exclusive", 0))
    if not node.int("reverse", 0):
        return op.cumsum(node[0], axis, exclusive=exclusive)
    return op.flip(op.cumsum(op.flip(node[0], axis), axis, exclusive=exclusive), axis)


CONVERTERS = {
    "Transpose": _transpose,
    "Concat": _concat,
    "Pad": _pad,
    "DepthToSpace": _depth_to_space,
    "SpaceToDepth": _space_to_depth,
    "Trilu": _triangle,
    "CumSum": _cumulative_sum,
}
