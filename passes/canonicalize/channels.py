"""Which values share channels: if a channel of one goes, it goes from all of them.

Channels are the axis along which convolutions and dense layers mix. Values that carry the same
channels (a convolution's result, its bias, its ReLU, the depthwise layer after it, the other branch
of a residual addition) are in one *space*. A space is *pinned* where something reads channels in a
way that this analysis does not follow.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from tvm import relax

from ...ops.meanings.common import ints
from ..rewrite import operator_of, variables
from . import families
from .carriers import CARRIERS, Layout, Segment
from .graph import Graph, is_number, shape_of
from .weights import Weight, weight_of


@dataclasses.dataclass(frozen=True)
class Reader:
    """A layer that mixes the channels of its first argument.

    Attributes:
        call: the layer.
        weight: its weights.
        input_axis: axis of the weights that meets the input's channels.
        output_axis: axis of the weights that makes the output's channels.
        source: layout of its input; None when that has no channels or other ones.
    """

    call: Any
    weight: Weight
    input_axis: int
    output_axis: int
    source: Layout | None

    @property
    def padded(self) -> bool:
        """Whether windows see anything but the input's values."""
        if operator_of(self.call) == "relax.matmul":
            return False
        return operator_of(self.call) in families.TRANSPOSED_CONVOLUTIONS or is_padded(self.call)

    def spatial_sums(self) -> np.ndarray:
        """The weights summed over the window, float64 [outputs, inputs]."""
        weight = self.weight.significant
        weight = weight if self.output_axis == 0 else weight.swapaxes(0, 1)
        return weight.reshape(*weight.shape[:2], -1).sum(-1)

    def reads(self) -> np.ndarray:
        """Which outputs depend on which inputs, bool [outputs, inputs]."""
        weight = self.weight.significant
        weight = weight if self.output_axis == 0 else weight.swapaxes(0, 1)
        return (weight != 0).reshape(*weight.shape[:2], -1).any(-1)


def is_padded(call: Any) -> bool:
    """Whether a convolution or pool pads."""
    return any(ints(call.attrs.padding))


class Channels:
    """The spaces of a module.

    Attributes:
        layouts: of every variable that carries channels.
        readers: the layers that mix channels, by variable.
        depthwise: layers that treat every channel by itself, by variable, with their weights.
    """

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.layouts: dict[relax.Expr, Layout] = {}
        self.readers: dict[relax.Var, Reader] = {}
        self.depthwise: dict[relax.Var, Weight] = {}
        self._parent: list[int] = []
        self._sizes: list[int] = []
        self._pinned: set[int] = set()
        for var, value in graph.bindings:
            layout = self._layout(var, value)
            if layout is not None:
                self.layouts[var] = layout
        for var in graph.outputs:
            self.pin(var)

    # -- spaces --

    def root(self, space: int) -> int:
        """The number that stands for the space after all unions."""
        while self._parent[space] != space:
            space = self._parent[space]
        return space

    def size(self, space: int) -> int:
        """How many channels a space has."""
        return self._sizes[space]

    def roots(self) -> list[int]:
        """All spaces that may lose channels."""
        pinned = {self.root(space) for space in self._pinned}
        return [s for s, parent in enumerate(self._parent) if s == parent and s not in pinned]

    def pin(self, *expressions: Any) -> None:
        """These values keep all their channels."""
        for expression in expressions:
            layout = self.layouts.get(expression)
            if layout is not None:
                self._pinned.update(segment.space for segment in layout.segments)

    def _new(self, size: int, axis: int) -> Layout:
        self._parent.append(len(self._parent))
        self._sizes.append(size)
        return Layout(axis, (Segment(len(self._parent) - 1),))

    def _unite(self, a: Any, b: Any) -> None:
        first, second = self.layouts[a].segments, self.layouts[b].segments
        shapes = [[(self._sizes[s.space], s.repeat) for s in part] for part in (first, second)]
        if shapes[0] != shapes[1]:
            self.pin(a, b)
            return
        for left, right in zip(first, second, strict=True):
            self._parent[self.root(right.space)] = self.root(left.space)

    # -- rules --

    def _layout(self, var: relax.Var, value: Any) -> Layout | None:
        name = operator_of(value)
        carrier = CARRIERS.get(name or "")
        if name in families.CONVOLUTIONS:
            return self._convolution(var, value)
        if name in families.TRANSPOSED_CONVOLUTIONS:
            return self._mixing(var, value, 0, 1, 1)
        if name == "relax.matmul":
            return self._mixing(var, value, 0, 1, len(shape_of(var)) - 1)
        if name in families.JOINT:
            return self._joint(var, value)
        if name == "relax.concat":
            return self._concat(var, value)
        source = value.args[0] if isinstance(value, relax.Call) and value.args else None
        layout = self.layouts.get(source) if source is not None else None
        if layout is None:
            self.pin(*variables(value))
            return None
        found = carrier(var, value, layout) if carrier is not None else None
        if found is None or any(isinstance(argument, relax.Var) for argument in value.args[1:]):
            self.pin(*variables(value))
            return None
        return found

    def _convolution(self, var: relax.Var, call: Any) -> Layout | None:
        groups = int(call.attrs.groups)
        if groups == 1:
            return self._mixing(var, call, 1, 0, 1)
        weight = weight_of(self.graph, call.args[1])
        layout = self.layouts.get(call.args[0])
        inputs = shape_of(call.args[0])[1]
        plain = str(call.attrs.data_layout)[:2] == "NC" and str(call.attrs.kernel_layout)[0] == "O"
        if weight is None or layout is None or layout.axis != 1 or groups != inputs or not plain:
            self.pin(*variables(call))
            return None
        self.depthwise[var] = weight
        times = weight.value.shape[0] // groups
        return Layout(1, tuple(Segment(s.space, s.repeat * times) for s in layout.segments))

    def _mixing(
        self, var: relax.Var, call: Any, input_axis: int, output_axis: int, axis: int
    ) -> Layout | None:
        """A layer with weights: it reads its input's channels and makes new ones."""
        weight = weight_of(self.graph, call.args[1])
        source = call.args[0]
        layout = self.layouts.get(source)
        if weight is None or not isinstance(source, relax.Var) or not _plain(call, weight):
            self.pin(*variables(call))
            return None
        wanted = (
            1 if axis == 1 and operator_of(call) != "relax.matmul" else len(shape_of(source)) - 1
        )
        if layout is not None and layout.axis != wanted:
            self.pin(source)
            layout = None
        self.readers[var] = Reader(call, weight, input_axis, output_axis, layout)
        return self._new(weight.value.shape[output_axis], axis)

    def _joint(self, var: relax.Var, call: Any) -> Layout | None:
        shape = shape_of(var)
        carrying = [a for a in call.args if a in self.layouts]
        if not carrying:
            return None
        axes = {self.layouts[a].axis - len(shape_of(a)) for a in carrying}
        if len(axes) != 1 or not self._fits(call, shape, axes.copy().pop()):
            self.pin(*carrying)
            return None
        for other in carrying[1:]:
            self._unite(carrying[0], other)
        first = self.layouts[carrying[0]]
        return Layout(axes.pop() + len(shape), first.segments)

    def _fits(self, call: Any, shape: tuple[int, ...], axis: int) -> bool:
        """Whether every operand has all channels (and we know how to slice it) or none."""
        for argument in call.args:
            own = shape_of(argument)
            size = own[axis] if len(own) >= -axis else 1
            known = argument in self.layouts or weight_of(self.graph, argument) is not None
            if argument in self.layouts and size != shape[axis]:
                return False
            if size != 1 and not known:
                return False
        return True

    def _concat(self, var: relax.Var, call: Any) -> Layout | None:
        fields = list(call.args[0].fields) if isinstance(call.args[0], relax.Tuple) else []
        carrying = [field for field in fields if field in self.layouts]
        axis = None if call.attrs.axis is None else int(call.attrs.axis) % len(shape_of(var))
        if not carrying or any(self.layouts[field].axis != axis for field in carrying):
            self.pin(*carrying)
            return None
        assert axis is not None
        if not is_number([shape_of(field)[axis] for field in fields]):
            self.pin(*carrying)
            return None
        segments: list[Segment] = []
        for field in fields:
            if field not in self.layouts:
                # Not sliceable, but the other parts are.
                fixed = self._new(shape_of(field)[axis], axis)
                self._pinned.update(segment.space for segment in fixed.segments)
                segments.extend(fixed.segments)
            else:
                segments.extend(self.layouts[field].segments)
        return Layout(axis, tuple(segments))


def _plain(call: Any, weight: Weight) -> bool:
    """Whether axes lie as this analysis expects."""
    if operator_of(call) == "relax.matmul":
        return weight.value.ndim == 2 and len(shape_of(call.args[0])) >= 2
    attrs = call.attrs
    kernel = "OI" if operator_of(call) in families.CONVOLUTIONS else "IO"
    layouts = (str(attrs.data_layout)[:2], str(attrs.out_layout)[:2], str(attrs.kernel_layout)[:2])
    return layouts == ("NC", "NC", kernel) and int(attrs.groups) == 1


def positions_of(
    channels: Channels, layout: Layout, kept: dict[int, np.ndarray]
) -> np.ndarray | None:
    """The positions along the channel axis that stay, None where all do."""
    parts: list[np.ndarray] = []
    offset, complete = 0, True
    for segment in layout.segments:
        root = channels.root(segment.space)
        size = channels.size(root)
        stay = kept.get(root)
        complete = complete and stay is None
        chosen = np.arange(size) if stay is None else stay
        spread = chosen[:, None] * segment.repeat + np.arange(segment.repeat)
        parts.append(offset + spread.reshape(-1))
        offset += size * segment.repeat
    return None if complete else np.concatenate(parts)
