"""Parts of a tensor: slices with bounds that are known, at least but for symbolic dimensions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from tvm import relax, tirx

from ....ops.symbolic import Extent, analyzer_for, equal, is_symbol, simplified, spell, symbols
from ..node import Node, Result
from ..values import bind_hint

op: Any = relax.op
_prim: Any = tirx

#: Exporters write "to the end" as some huge number.
_HUGE = 2**31 - 1


def slice_axes(
    x: relax.Expr,
    axes: Sequence[int],
    starts: Sequence[Extent],
    stops: Sequence[Extent],
    steps: Sequence[int],
) -> relax.Expr:
    """`strided_slice` with positive steps and bounds within the tensor."""
    return op.strided_slice(
        x, list(axes), list(starts), list(stops), list(steps), assume_inbound=True
    )


def _slice(node: Node) -> Result:
    """Negative steps flip the axis first; slices that keep everything vanish."""
    shape = node.extents(0)
    starts = node.sizes(1, "the starts")
    ends = node.sizes(2, "the ends")
    given = node.known_ints(3, "the axes") if node.has(3) else list(range(len(starts)))
    steps = node.known_ints(4, "the steps") if node.has(4) else [1] * len(starts)
    if not len(starts) == len(ends) == len(given) == len(steps):
        raise node.error("invalid-node", "starts, ends, axes and steps differ in length")
    if 0 in steps:
        raise node.error("invalid-node", "a step of 0")
    x = node[0]
    wanted: dict[int, tuple[Extent, Extent, int]] = {}
    for axis, start, end, step in zip(given, starts, ends, steps, strict=True):
        axis = node.normalize_axis(axis)
        extent = shape[axis]
        if not all(isinstance(size, int) for size in (extent, start, end)):
            x, bounds = _open_bounds(node, x, axis, (start, end, step))
            if bounds is not None:
                wanted[axis] = bounds
            continue
        picked = range(extent)[slice(*_bounds(start, end, step, extent))]
        if not picked:
            sizes = node.shape(0)
            empty = [0 if a == axis else sizes[a] for a in range(len(sizes))]
            return np.empty(empty, node.dtype())
        if step < 0:
            x = op.flip(x, axis)
            picked = range(extent - 1 - picked[0], extent - picked[-1], -step)
        if len(picked) != extent:
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


def _open_bounds(
    node: Node, x: relax.Expr, axis: int, bounds: tuple[Extent, Extent, int]
) -> tuple[relax.Expr, tuple[Extent, Extent, int] | None]:
    """The tensor and the slice to take of it (None: everything), where sizes are symbolic."""
    start, end, step = bounds
    extent = node.extents(0)[axis]
    if step < 0:
        last = isinstance(start, int) and (start == -1 or start >= _HUGE)
        if last and step == -1 and isinstance(end, int) and end <= -_HUGE:
            return op.flip(x, axis), None
        raise node.refuse("a backward slice of part of an axis of symbolic size")
    first = _inside(node, start, extent, is_end=False)
    stop = _inside(node, end, extent, is_end=True)
    if equal(first, 0) and equal(stop, extent) and step == 1:
        return x, None
    return x, (first, stop, step)


def _inside(node: Node, bound: Extent, extent: Extent, is_end: bool) -> Extent:
    """A bound counted from the front and clamped to the axis."""
    if isinstance(bound, int) and bound >= _HUGE:
        return extent
    if isinstance(bound, int) and bound <= -_HUGE:
        return 0
    analyzer = analyzer_for([bound, extent])
    if isinstance(bound, int):
        bound = simplified(bound + extent) if bound < 0 else bound
    elif analyzer.can_prove(bound < 0):
        bound = simplified(bound + extent)
    elif not analyzer.can_prove(bound >= 0):
        raise node.error(
            "symbolic-dimension",
            f"the bound {spell(bound)} of a slice may be negative or not",
            bind_hint([bound]),
        )
    if not isinstance(bound, int) and not analyzer.can_prove(bound >= 0):
        bound = simplified(_prim.max(bound, 0))
    if isinstance(bound, int) and isinstance(extent, int):
        return min(bound, extent)
    if analyzer.can_prove(bound <= extent):
        return bound
    if is_end and isinstance(extent, int) and _limit(node, bound, extent):
        return bound
    return simplified(_prim.min(bound, extent))


def _limit(node: Node, bound: Any, extent: int) -> bool:
    """Note that a table of `extent` entries cannot serve larger sizes of a dimension.

    The first ``T`` entries are what a model with positions takes; with more than there are,
    ``min(T, extent)`` entries would not fit what they are added to.
    """
    free = symbols([bound])
    if len(free) != 1 or not is_symbol(free[0]):
        return False
    offset = simplified(bound - free[0])
    if not isinstance(offset, int) or extent - offset < 1:
        return False
    symbol, largest = free[0], extent - offset
    known = node.builder.largest.get(symbol)
    if known is None or largest < known:
        node.builder.largest[symbol] = largest
        node.note(f"dimension {symbol.name!r} is at most {largest}")
    return True


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
    if sizes == [extent]:
        return node[0]
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


CONVERTERS = {"Slice": _slice, "Split": _split}
