"""Operators that give the same elements another shape, or repeat them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from tvm import relax

from ....ops.symbolic import Extent, equal, simplified, spell_shape
from ..node import Node, Result
from ..values import bind_hint

op: Any = relax.op


def _product(extents: Sequence[Extent]) -> Extent:
    return simplified(math.prod(extents))


def _reshape(node: Node) -> Result:
    source, target = node.extents(0), node.sizes(1, "the shape")
    if not node.int("allowzero", 0):
        if any(_is(e, 0) and axis >= len(source) for axis, e in enumerate(target)):
            raise node.error(
                "invalid-node", f"shape {spell_shape(target)} copies an axis that is not there"
            )
        target = [source[axis] if _is(e, 0) else e for axis, e in enumerate(target)]
    count, rest = _product(source), _product([e for e in target if not _is(e, -1)])
    if sum(_is(e, -1) for e in target) == 1 and not _is(rest, 0):
        target = [simplified(count // rest) if _is(e, -1) else e for e in target]
    if any(isinstance(e, int) and e < 0 for e in target):
        raise node.error(
            "invalid-node", f"cannot reshape {spell_shape(source)} to {spell_shape(target)}"
        )
    if not equal(count, _product(target)):
        open_ = not isinstance(simplified(count - _product(target)), int)
        raise node.error(
            "symbolic-dimension" if open_ else "invalid-node",
            f"cannot reshape {spell_shape(source)} to {spell_shape(target)}"
            + (": it does not fit for every size" if open_ else ""),
            bind_hint([count, *target]) if open_ else None,
        )
    return op.reshape(node[0], target)


def _is(extent: Extent, value: int) -> bool:
    return isinstance(extent, int) and extent == value


def _flatten(node: Node) -> Result:
    shape, rank = node.extents(0), node.rank()
    axis = node.int("axis", 1)
    if not -rank <= axis <= rank:
        raise node.error("invalid-node", f"axis {axis} is out of range for rank {rank}")
    axis = axis + rank if axis < 0 else axis
    return op.reshape(node[0], (_product(shape[:axis]), _product(shape[axis:])))


def _axes(node: Node, rank: int) -> list[int] | None:
    axes = node.known_ints(1, "the axes") if node.has(1) else node.ints("axes", None)
    return None if axes is None else [node.normalize_axis(axis, rank) for axis in axes]


def _squeeze(node: Node) -> Result:
    """Squeeze; a symbolic dimension is not one of those that are left out for being 1."""
    shape = node.extents(0)
    axes = _axes(node, len(shape))
    axes = [axis for axis, e in enumerate(shape) if _is(e, 1)] if axes is None else axes
    if any(not _is(shape[axis], 1) for axis in axes):
        raise node.error("invalid-node", f"cannot squeeze axes {axes} of {spell_shape(shape)}")
    return op.squeeze(node[0], axes) if axes else node[0]


def _unsqueeze(node: Node) -> Result:
    given = node.known_ints(1, "the axes") if node.has(1) else node.ints("axes") or []
    rank = node.rank() + len(given)
    axes = [node.normalize_axis(axis, rank) for axis in given]
    if len(set(axes)) != len(axes):
        raise node.error("invalid-node", f"axes = {given} names an axis twice")
    return op.expand_dims(node[0], sorted(axes)) if axes else node[0]


def _expand(node: Node) -> Result:
    source, target = list(node.extents(0)), node.sizes(1, "the shape")
    rank = max(len(source), len(target))
    shape = [
        _broadcast(node, before, after)
        for before, after in zip(
            [1] * (rank - len(source)) + source, [1] * (rank - len(target)) + target, strict=True
        )
    ]
    same = len(shape) == len(source) and all(map(equal, shape, source))
    return node[0] if same else op.broadcast_to(node[0], shape)


def _broadcast(node: Node, before: Extent, after: Extent) -> Extent:
    """The common size of two dimensions."""
    if _is(after, 1) or equal(before, after):
        return before
    if _is(before, 1):
        return after
    whole = f"cannot expand {spell_shape(node.extents(0))} to "
    whole += spell_shape(node.sizes(1, "the shape"))
    if isinstance(before, int) and isinstance(after, int):
        raise node.error("invalid-node", whole)
    raise node.error("symbolic-dimension", whole, bind_hint([before, after]))


def _tile(node: Node) -> Result:
    repeats = node.sizes(1, "the repeats")
    if len(repeats) != node.rank():
        raise node.error("invalid-node", f"{len(repeats)} repeats for rank {node.rank()}")
    if all(isinstance(repeat, int) for repeat in repeats):
        return op.tile(node[0], repeats) if any(r != 1 for r in repeats) else node[0]
    # Every axis gets one before it, along which the whole is repeated.
    shape = node.extents(0)
    pairs = list(zip(repeats, shape, strict=True))
    spread = op.reshape(node[0], [e for extent in shape for e in (1, extent)])
    spread = op.broadcast_to(spread, [e for pair in pairs for e in pair])
    return op.reshape(spread, [simplified(repeat * extent) for repeat, extent in pairs])


CONVERTERS = {
    "Reshape": _reshape,
    "Flatten": _flatten,
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    "Expand": _expand,
    "Tile": _tile,
}
