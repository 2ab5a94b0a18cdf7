"""Operators that move data or change its shape, without computing anything."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from tvm import relax

from ..limits import check_extents
from ..node import Node, Result, constant, static_shape

op: Any = relax.op


def _reshape(node: Node) -> Result:
    source, target = node.shape(0), node.known_ints(1, "the shape")
    if not node.int("allowzero", 0):
        if any(e == 0 and axis >= len(source) for axis, e in enumerate(target)):
            raise node.error("invalid-node", f"shape {target} copies an axis that is not there")
        target = [source[axis] if e == 0 else e for axis, e in enumerate(target)]
    rest = math.prod(e for e in target if e != -1)
    if target.count(-1) == 1 and rest > 0:
        target = [math.prod(source) // rest if e == -1 else e for e in target]
    if any(e < 0 for e in target) or math.prod(target) != math.prod(source):
        raise node.error("invalid-node", f"cannot reshape {list(source)} to {target}")
    return op.reshape(node[0], target)


def _flatten(node: Node) -> Result:
    shape, rank = node.shape(0), node.rank()
    axis = node.int("axis", 1)
    if not -rank <= axis <= rank:
        raise node.error("invalid-node", f"axis {axis} is out of range for rank {rank}")
    axis = axis + rank if axis < 0 else axis
    return op.reshape(node[0], (math.prod(shape[:axis]), math.prod(shape[axis:])))


def _transpose(node: Node) -> Result:
    rank = node.rank()
    order = node.ints("perm", None)
    order = list(reversed(range(rank))) if order is None else order
    if sorted(order) != list(range(rank)):
        raise node.error("invalid-node", f"perm = {order} for rank {rank}")
    return op.permute_dims(node[0], order)


def _axes(node: Node, rank: int) -> list[int] | None:
    axes = node.known_ints(1, "the axes") if node.has(1) else node.ints("axes", None)
    return None if axes is None else [node.normalize_axis(axis, rank) for axis in axes]


def _squeeze(node: Node) -> Result:
    shape = node.shape(0)
    axes = _axes(node, len(shape))
    axes = [axis for axis, e in enumerate(shape) if e == 1] if axes is None else axes
    if any(shape[axis] != 1 for axis in axes):
        raise node.error("invalid-node", f"cannot squeeze axes {axes} of {list(shape)}")
    return op.squeeze(node[0], axes) if axes else node[0]


def _unsqueeze(node: Node) -> Result:
    given = node.known_ints(1, "the axes") if node.has(1) else node.ints("axes") or []
    rank = node.rank() + len(given)
    axes = [node.normalize_axis(axis, rank) for axis in given]
    if len(set(axes)) != len(axes):
        raise node.error("invalid-node", f"axes = {given} names an axis twice")
    return op.expand_dims(node[0], sorted(axes)) if axes else node[0]


def _concat(node: Node) -> Result:
    axis = node.axis("axis", 0)
    parts = [i for i in range(len(node.inputs)) if 0 not in node.shape(i)]
    if len(parts) == 1:
        return node[parts[0]]
    return op.concat([node[i] for i in parts], axis)


def _split(node: Node) -> Result | tuple[Result, ...]:
    axis = node.axis("axis", 0)
    extent, count = node.shape(0)[axis], len(node.proto.output)
    if node.has(1):
        sizes = node.known_ints(1, "the split sizes")
    elif node.ints("split", None) is not None:
        sizes = node.ints("split") or []
    else:
        count = node.int("num_outputs", count)
        size = -(-extent // count) if count > 0 else 0
        sizes = [min(size, extent - start) for start in range(0, extent, max(size, 1))]
    if sum(sizes) != extent or min(sizes) < 0 or len(sizes) < node.output_count:
        raise node.error("invalid-node", f"cannot split {extent} into {sizes}")
    if extent in sizes:
        # One piece is everything, the others are empty.
        shape = list(node.shape(0))
        shape[axis] = 0
        empty = np.empty(shape, node.dtype())
        return tuple(node[0] if size else empty for size in sizes)
    if 0 in sizes:
        raise node.refuse("a split into three or more pieces, some of them empty")
    pieces = node.emit(op.split(node[0], np.cumsum(sizes)[:-1].tolist(), axis))
    return tuple(relax.TupleGetItem(pieces, i) for i in range(node.output_count))


def slice_axes(
    x: relax.Expr,
    axes: Sequence[int],
    starts: Sequence[int],
    stops: Sequence[int],
    steps: Sequence[int],
) -> relax.Expr:
    """`strided_slice` with positive steps and bounds within the tensor."""
    return op.strided_slice(
        x, list(axes), list(starts), list(stops), list(steps), assume_inbound=True
    )


def _slice(node: Node) -> Result:
    """Negative steps flip the axis first; slices that keep everything vanish."""
    shape = node.shape(0)
    starts = node.known_ints(1, "the starts")
    ends = node.known_ints(2, "the ends")
    given = node.known_ints(3, "the axes") if node.has(3) else list(range(len(starts)))
    steps = node.known_ints(4, "the steps") if node.has(4) else [1] * len(starts)
    if not len(starts) == len(ends) == len(given) == len(steps):
        raise node.error("invalid-node", "starts, ends, axes and steps differ in length")
    if 0 in steps:
        raise node.error("invalid-node", "a step of 0")
    x = node[0]
    wanted: dict[int, tuple[int, int, int]] = {}
    for axis, start, end, step in zip(given, starts, ends, steps, strict=True):
        axis = node.normalize_axis(axis)
        picked = range(shape[axis])[slice(*_bounds(start, end, step, shape[axis]))]
        if not picked:
            return np.empty([0 if a == axis else e for a, e in enumerate(shape)], node.dtype())
        if step < 0:
            x = op.flip(x, axis)
            picked = range(shape[axis] - 1 - picked[0], shape[axis] - picked[-1], -step)
        if len(picked) != shape[axis]:
            wanted[axis] = (picked[0], picked[-1] + 1, abs(step))
    if not wanted:
        return x
    return slice_axes(x, list(wanted), *map(list, zip(*wanted.values(), strict=True)))


def _bounds(start: int, end: int, step: int, extent: int) -> tuple[int, int | None, int]:
    """ONNX bounds as Python's: both count from the end when negative, and are clamped."""
    start = start + extent if start < 0 else start
    end = end + extent if end < 0 else end
    if step > 0:
        return max(0, min(start, extent)), max(0, min(end, extent)), step
    start = max(0, min(start, extent - 1))
    return start, (None if end < 0 else min(end, extent - 1)), step


def _expand(node: Node) -> Result:
    target = node.known_ints(1, "the shape")
    try:
        shape = np.broadcast_shapes(node.shape(0), tuple(target))
    except ValueError:
        raise node.error(
            "invalid-node", f"cannot expand {list(node.shape(0))} to {target}"
        ) from None
    return node[0] if shape == node.shape(0) else op.broadcast_to(node[0], shape)


def _tile(node: Node) -> Result:
    repeats = node.known_ints(1, "the repeats")
    if len(repeats) != node.rank():
        raise node.error("invalid-node", f"{len(repeats)} repeats for rank {node.rank()}")
    return op.tile(node[0], repeats) if any(r != 1 for r in repeats) else node[0]


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
    padded = [e + sum(growth.get(axis, ())) for axis, e in enumerate(static_shape(x))]
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
    "Reshape": _reshape,
    "Flatten": _flatten,
    "Transpose": _transpose,
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    "Concat": _concat,
    "Split": _split,
    "Slice": _slice,
    "Expand": _expand,
    "Tile": _tile,
    "Pad": _pad,
    "DepthToSpace": _depth_to_space,
    "SpaceToDepth": _space_to_depth,
    "Trilu": _triangle,
    "CumSum": _cumulative_sum,
}
