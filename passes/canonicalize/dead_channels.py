"""Remove channels that change nothing, exactly.

A channel goes when every layer that reads it multiplies it by zero, or when its value is a constant
that every reader can take into its bias. It goes from everything that carries it: the layer that
makes it, biases, depthwise layers, other branches of additions. At borders a constant other than
zero meets padding, so there it stays.
"""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import numpy as np
from tvm import ir, relax

from ..base import Pass, PassContext, register_pass
from ..rewrite import constant, operator_of
from . import families
from .channel_values import Values, channel_values
from .channels import Channels, Layout, Reader, positions_of
from .graph import Graph, dtype_of, op, shape_of, with_attributes
from .weights import weight_of


@register_pass
@dataclasses.dataclass(frozen=True)
class DeadChannels(Pass):
    """Remove dead channels without changing the result."""

    name: ClassVar[str] = "dead-channels"

    def apply(self, module: ir.IRModule, context: PassContext) -> ir.IRModule:
        """The smaller module; the same object if every channel matters."""
        graph = Graph(module)
        channels = Channels(graph)
        values = channel_values(channels)
        kept = kept_channels(channels, values)
        if not kept:
            return module
        for var, reader in channels.readers.items():
            layout = channels.layouts[var]
            left = positions_of(channels, layout, kept)
            if left is not None:
                total = reader.weight.value.shape[reader.output_axis]
                removed = total - len(left)
                message = f"removed {removed} of {total} channels, which change nothing"
                context.note(self.name, var.name, message, removed=removed, total=total)
        return _Slicer(channels, values, kept).run()


def kept_channels(channels: Channels, values: Values) -> dict[int, np.ndarray]:
    """For every space that loses channels: the channels that stay."""
    dead = {root: np.ones(channels.size(root), bool) for root in channels.roots()}
    for reader in channels.readers.values():
        if reader.source is None:
            continue
        harmless = _harmless(reader, values[reader.call.args[0]])
        offset = 0
        for segment in reader.source.segments:
            root = channels.root(segment.space)
            size = channels.size(root)
            part = harmless[offset : offset + size * segment.repeat]
            offset += part.size
            if root in dead:
                dead[root] &= part.reshape(size, segment.repeat).all(1)
    kept: dict[int, np.ndarray] = {}
    for root, mask in dead.items():
        if mask.all():
            mask[0] = False  # a tensor without channels is no tensor
        if mask.any():
            kept[root] = np.flatnonzero(~mask)
    return kept


def _harmless(reader: Reader, source: np.ndarray) -> np.ndarray:
    """Which input channels a reader can do without, bool [inputs]."""
    unread = ~reader.reads().any(0)
    absorbed = ~np.isnan(source) & (not reader.padded) & reader.weight.is_float
    return unread | (source == 0) | absorbed


class _Slicer:
    def __init__(self, channels: Channels, values: Values, kept: dict[int, np.ndarray]) -> None:
        self.graph = channels.graph
        self.channels = channels
        self.values = values
        self.kept = kept

    def run(self) -> ir.IRModule:
        graph = self.graph
        for var, value in graph.bindings:
            graph.keep(var, value) if not isinstance(value, relax.Call) else self._call(var, value)
        return graph.finish()

    def _positions(self, layout: Layout | None) -> np.ndarray | None:
        return None if layout is None else positions_of(self.channels, layout, self.kept)

    def _call(self, var: relax.Var, call: Any) -> None:
        graph, layout = self.graph, self.channels.layouts.get(var)
        left = self._positions(layout)
        reader = self.channels.readers.get(var)
        name = operator_of(call)
        if reader is not None:
            self._reader(var, reader, left)
        elif layout is None or left is None:
            graph.keep(var, call)
        elif var in self.channels.depthwise:
            weight = self._emit(self.channels.depthwise[var].taken(0, left).expression, var.name)
            groups = shape_of(graph.map(call.args[0]))[1]
            self._replace(
                var, with_attributes(call, [graph.map(call.args[0]), weight], groups=groups)
            )
        elif name == "relax.reshape":
            shape = [*shape_of(var)]
            shape[layout.axis] = len(left)
            self._replace(var, op.reshape(graph.map(call.args[0]), shape))
        elif name in families.JOINT:
            arguments = [self._operand(var, a, layout.axis, left) for a in call.args]
            self._replace(var, relax.Call(call.op, arguments, call.attrs, call.ty_args))
        elif name in families.SCALED or name == "relax.nn.prelu":
            along = int(call.attrs.axis) % len(shape_of(var)) == layout.axis
            taken = [_take(a, left) if along else a for a in call.args[1:]]
            arguments = [graph.map(call.args[0]), *taken]
            self._replace(var, relax.Call(call.op, arguments, call.attrs, call.ty_args))
        else:
            graph.keep(var, call)

    def _replace(self, var: relax.Var, call: relax.Expr) -> None:
        self.graph.replace(var, self.graph.emit(call, var.name))

    def _emit(self, expression: relax.Expr, name: str) -> relax.Expr:
        """Bind a dequantize; a constant needs no variable."""
        if isinstance(expression, relax.Call):
            return self.graph.emit(expression, f"{name}:weight")
        return expression

    def _operand(self, var: relax.Var, argument: Any, axis: int, left: np.ndarray) -> relax.Expr:
        """An operand of a sum or product: constants lose channels too."""
        weight = None if argument in self.channels.layouts else weight_of(self.graph, argument)
        if weight is None:
            return self.graph.map(argument)
        own = axis - len(shape_of(var)) + weight.value.ndim
        if own < 0 or weight.value.shape[own] == 1:
            return self.graph.map(argument)
        return self._emit(weight.taken(own, left).expression, var.name)

    def _reader(self, var: relax.Var, reader: Reader, left: np.ndarray | None) -> None:
        graph, call = self.graph, reader.call
        read = self._positions(reader.source)
        if left is None and read is None:
            graph.keep(var, call)
            return
        weight = reader.weight.taken(reader.output_axis, left).taken(reader.input_axis, read)
        arguments = [graph.map(call.args[0]), self._emit(weight.expression, var.name)]
        layer = graph.emit(relax.Call(call.op, arguments, call.attrs, call.ty_args), var.name)
        extra = self._absorbed(reader, read)
        if extra is not None:
            bias = extra if left is None else extra[left]
            axis = self.channels.layouts[var].axis
            shape = [1] * (len(shape_of(var)) - axis)
            shape[0] = bias.size
            layer = graph.emit(
                op.add(layer, constant(bias.reshape(shape).astype(dtype_of(var)))), var.name
            )
        graph.replace(var, layer)

    def _absorbed(self, reader: Reader, read: np.ndarray | None) -> np.ndarray | None:
        """What the removed input channels added to every output."""
        if read is None:
            return None
        source = self.values[reader.call.args[0]].copy()
        source[read] = 0
        contribution = np.where(reader.reads(), reader.spatial_sums() * source, 0.0).sum(1)
        return contribution if np.any(contribution) else None


def _take(argument: Any, positions: np.ndarray) -> relax.Expr:
    array = argument.value.numpy()
    return constant(array.take(positions)) if array.size > 1 else argument
