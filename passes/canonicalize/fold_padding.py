"""Let convolutions and pools do the zero padding that stands before them."""

from __future__ import annotations

from typing import Any

from tvm import ir, relax

from ...ops.meanings.common import ints
from ...ops.meanings.convolution import spatial_padding
from ..rewrite import operator_of
from . import families
from .graph import Graph, rewrite, with_attributes

#: Operators whose result is never negative.
_NOT_NEGATIVE = frozenset(
    f"relax.{name}" for name in ("nn.relu", "sigmoid", "exp", "abs", "square", "nn.softmax")
)


def fold_padding(module: ir.IRModule) -> ir.IRModule:
    """The module without paddings that the next operator can do; the same object if none."""
    return rewrite(module, _RULES)


def _total(graph: Graph, call: Any) -> tuple[Any, list[int]] | None:
    """What a zero pad pads, and the padding of both operators together."""
    pad = graph.call(call.args[0], "relax.nn.pad")
    if pad is None or str(pad.attrs.pad_mode) != "constant" or float(pad.attrs.pad_value) != 0:
        return None
    attrs = call.attrs
    layout = str(attrs.layout if hasattr(attrs, "layout") else attrs.data_layout)
    widths = ints(pad.attrs.pad_width)
    pairs = [widths[2 * axis : 2 * axis + 2] for axis in range(len(layout))]
    space = [axis for axis, letter in enumerate(layout) if letter in "DHW"]
    others = [pairs[axis] for axis in range(len(layout)) if axis not in space]
    if any(any(pair) for pair in others) or any(w < 0 for w in widths):
        return None
    before, after = spatial_padding(ints(attrs.padding), len(space))
    total = [b + pairs[axis][0] for b, axis in zip(before, space, strict=True)]
    total += [a + pairs[axis][1] for a, axis in zip(after, space, strict=True)]
    return pad.args[0], total


def _into_convolution(graph: Graph, _var: Any, call: Any) -> relax.Expr | None:
    found = _total(graph, call)
    if found is None:
        return None
    return with_attributes(call, [found[0], *call.args[1:]], padding=found[1])


def _into_average(graph: Graph, _var: Any, call: Any) -> relax.Expr | None:
    """Padding counts as elements, so the pool must count its own, or have none."""
    found = _total(graph, call)
    attrs = call.attrs
    if found is None or attrs.ceil_mode:
        return None
    if any(ints(attrs.padding)) and not attrs.count_include_pad:
        return None
    return with_attributes(call, [found[0]], padding=found[1], count_include_pad=True)


def _into_maximum(graph: Graph, _var: Any, call: Any) -> relax.Expr | None:
    """A zero changes no maximum of what is never negative, if every window sees the image."""
    found = _total(graph, call)
    if found is None or call.attrs.ceil_mode:
        return None
    source, total = found
    value: Any = graph.definition(source)
    clipped = operator_of(value) == "relax.clip" and float(value.args[1].value) >= 0
    if operator_of(value) not in _NOT_NEGATIVE and not clipped:
        return None
    kernel, dilation = ints(call.attrs.pool_size), ints(call.attrs.dilation)
    reach = [d * (k - 1) for k, d in zip(kernel, dilation, strict=True)]
    # A window must reach an element from within the padding; with dilation it may step over.
    if any(d != 1 for d in dilation) or any(p > r for p, r in zip(total, reach * 2, strict=True)):
        return None
    return with_attributes(call, [source], padding=total)


_RULES = {
    **dict.fromkeys(families.CONVOLUTIONS, (_into_convolution,)),
    **{f"relax.nn.avg_pool{rank}d": (_into_average,) for rank in (1, 2, 3)},
    **{f"relax.nn.max_pool{rank}d": (_into_maximum,) for rank in (1, 2, 3)},
}
