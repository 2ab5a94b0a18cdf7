"""Operators that carry channels from their first argument to their result, and where to."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from tvm import ir

from ...ops.meanings.common import ints
from ...ops.symbolic import equal
from . import families
from .graph import axes_of, is_number, shape_of


@dataclasses.dataclass(frozen=True)
class Segment:
    """A space, each channel of which takes `repeat` neighbouring positions."""

    space: int
    repeat: int = 1


@dataclasses.dataclass(frozen=True)
class Layout:
    """A value's channel axis, and the spaces that lie along it one after the other."""

    axis: int
    segments: tuple[Segment, ...]


#: A rule: ``(variable, call, layout of the first argument) -> layout, or None if channels mix``.


def _same(_var: Any, _call: Any, layout: Layout) -> Layout:
    return layout


def _scaled(_var: Any, call: Any, layout: Layout) -> Layout | None:
    known = all(isinstance(argument, ir.GenericConst) for argument in call.args[1:])
    return layout if known else None


def _pool(_var: Any, call: Any, layout: Layout) -> Layout | None:
    plain = str(call.attrs.layout)[:2] == "NC" and layout.axis == 1
    return layout if plain else None


def _reduce(var: Any, call: Any, layout: Layout) -> Layout | None:
    rank = len(shape_of(call.args[0]))
    reduced = range(rank) if call.attrs.axis is None else ints(call.attrs.axis)
    gone = {axis % rank for axis in reduced}
    if layout.axis in gone:
        return None
    before = sum(axis < layout.axis for axis in gone)
    return layout if call.attrs.keepdims else Layout(layout.axis - before, layout.segments)


def _permute(_var: Any, call: Any, layout: Layout) -> Layout:
    return Layout(axes_of(call).index(layout.axis), layout.segments)


def _pad(_var: Any, call: Any, layout: Layout) -> Layout | None:
    widths = ints(call.attrs.pad_width)
    return None if any(widths[2 * layout.axis : 2 * layout.axis + 2]) else layout


def _slice(var: Any, call: Any, layout: Layout) -> Layout | None:
    rank = len(shape_of(var))
    axes = {int(axis.value) % rank for axis in call.args[1].fields}
    return None if layout.axis in axes else layout


def _reshape(var: Any, call: Any, layout: Layout) -> Layout | None:
    """Channels stay together with what lies behind them (flatten), or come apart from it again."""
    old, new = shape_of(call.args[0]), shape_of(var)
    size, before = old[layout.axis], math.prod(old[: layout.axis])
    for axis, length in enumerate(new):
        if not equal(math.prod(new[:axis]), before) or length == 1:
            continue
        if not is_number([size, length]):
            return None
        if length % size == 0:
            times = length // size
            return Layout(axis, tuple(Segment(s.space, s.repeat * times) for s in layout.segments))
        behind = size // length
        if size % length == 0 and all(s.repeat % behind == 0 for s in layout.segments):
            return Layout(
                axis, tuple(Segment(s.space, s.repeat // behind) for s in layout.segments)
            )
        return None
    return None


CARRIERS: dict[str, Any] = {
    **dict.fromkeys(families.UNARY, _same),
    **dict.fromkeys(families.SCALED, _scaled),
    **dict.fromkeys(families.POOLS, _pool),
    **dict.fromkeys(families.REDUCTIONS, _reduce),
    "relax.permute_dims": _permute,
    "relax.reshape": _reshape,
    "relax.nn.pad": _pad,
    "relax.strided_slice": _slice,
    "relax.image.resize2d": _pool,
    "relax.nn.prelu": lambda var, call, layout: (
        layout
        if isinstance(call.args[1], ir.GenericConst) and int(call.attrs.axis) == layout.axis
        else None
    ),
}
