"""Where activations can be smoothed: values that layers multiply by weights, and what made them.

A site is one activation with all layers that read it. Its producer is the normalization, layer or
constant factor before it that can take the division by s; between the two only operators that are
positively homogeneous may lie: ReLU, reshapes, pools, and the products with run-time values that
are linear in this side (attention's ``P V``, a gate's ``silu(a) b``).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
from tvm import ir, relax

from ...ops.meanings.common import ints
from ..canonicalize.graph import Graph
from ..layers import Layer, find_layers
from ..rewrite import operator_of
from .labels import along, carry, extents, operands

Kind = Literal["norm", "previous"]
_NORMS = {"relax.nn.layer_norm": (1, 2), "relax.nn.rms_norm": (1,)}


@dataclasses.dataclass(frozen=True, eq=False)
class Division:
    """A constant argument that has to be divided by the factor of each of its elements' channel.

    Attributes:
        var: the binding.
        place: of the argument.
        labels: the channel of each element; broadcasts against the constant (or makes it wider).
    """

    var: relax.Var
    place: int
    labels: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class Producer:
    """What can take the division.

    Attributes:
        kind: ``norm``: a normalization; ``previous``: a layer, or a factor per channel.
        divisions: constants to divide, the producer's own and additions on the way.
        labels: of the value, see `labels`.
        channels: number of the producer's channels.
    """

    kind: Kind
    divisions: tuple[Division, ...]
    labels: np.ndarray
    channels: int


@dataclasses.dataclass(frozen=True, eq=False)
class Site:
    """An activation and the layers that read it.

    Attributes:
        input: the activation.
        layers: all of its readers that have weights, each with as many input channels.
        axis: of the activation, which counts channels; negative.
        channels: their number.
        producer: what the division folds into; None where nothing can take it, or where somebody
            else reads the activation too.
        channel_labels: the producer's channel of each channel; those with one label share a factor.
    """

    input: relax.Var
    layers: tuple[Layer, ...]
    axis: int
    channels: int
    producer: Producer | None
    channel_labels: np.ndarray

    @property
    def name(self) -> str:
        """The activation's name."""
        return self.input.name


def find_sites(module: ir.IRModule) -> list[Site]:
    """All sites, in program order; layers of one activation that disagree on its axis are none."""
    graph = Graph(module)
    readers: dict[relax.Var, list[Layer]] = {}
    for layer in find_layers(module):
        if layer.kind != "embedding" and isinstance(layer.input, relax.Var):
            readers.setdefault(layer.input, []).append(layer)
    return list(_sites(graph, readers))


def _sites(graph: Graph, readers: dict[relax.Var, list[Layer]]) -> Iterator[Site]:
    for var, layers in readers.items():
        axes = {-1 if layer.kind == "linear" else 1 - len(layer.shape) for layer in layers}
        if len(axes) != 1:
            continue
        axis = axes.pop()
        channels = extents(var)[axis]
        if not isinstance(channels, int):
            continue
        others = len(graph.users[var]) > len(layers) or var in graph.outputs
        producer = None if others else _producer(graph, var)
        labels = None if producer is None else along(producer.labels, axis, channels)
        if labels is None:
            producer, labels = None, np.arange(channels)
        yield Site(var, tuple(layers), axis, channels, producer, labels)


def _producer(graph: Graph, var: relax.Expr) -> Producer | None:
    """The producer of a value; `var` itself may be read by several, what lies before may not."""
    call: Any = graph.definition(var)
    operator = operator_of(call)
    if not isinstance(var, relax.Var) or operator is None:
        return None
    if operator in _NORMS:
        return _norm(var, call)
    places = [p for p, argument in enumerate(call.args) if isinstance(argument, ir.GenericConst)]
    if operator in ("relax.matmul", "relax.nn.conv1d", "relax.nn.conv2d") and places == [1]:
        return _layer(var, call)
    if operator in ("relax.add", "relax.subtract") and len(places) == 1:
        found = _before(graph, call.args[1 - places[0]])
        if found is None or extents(call) != extents(call.args[1 - places[0]]):
            return None
        addend = Division(var, places[0], found.labels)
        return dataclasses.replace(found, divisions=(*found.divisions, addend))
    for place in operands(call):
        found = _before(graph, call.args[place])
        labels = None if found is None else carry(call, place, found.labels)
        if found is not None and labels is not None:
            return dataclasses.replace(found, labels=labels)
    return _factor(var, call, places[0]) if operator == "relax.multiply" and places else None


def _before(graph: Graph, var: relax.Expr) -> Producer | None:
    return _producer(graph, var) if graph.used_once(var) else None


def _norm(var: relax.Var, call: Any) -> Producer | None:
    """A normalization over the last axis with constant scale and shift."""
    shape, places = extents(var), _NORMS[str(operator_of(call))]
    if [axis % len(shape) for axis in ints(call.attrs.axes)] != [len(shape) - 1]:
        return None
    if not all(isinstance(call.args[place], ir.GenericConst) for place in places):
        return None
    channels = np.arange(shape[-1])
    divisions = tuple(Division(var, place, channels) for place in places)
    return Producer("norm", divisions, _on_axis(channels, len(shape), -1), len(channels))


def _layer(var: relax.Var, call: Any) -> Producer | None:
    """A matrix product or convolution with a float constant."""
    weight = extents(call.args[1])
    if str(call.args[1].ty.dtype) != "float32":
        return None
    if operator_of(call) == "relax.matmul":
        if len(weight) != 2:
            return None
        channels = np.arange(weight[1])
        return Producer(
            "previous",
            (Division(var, 1, channels),),
            _on_axis(channels, len(extents(var)), -1),
            weight[1],
        )
    channels = np.arange(weight[0])
    rows = _on_axis(channels, len(weight), 0)
    labels = _on_axis(channels, len(weight), 1)
    return Producer("previous", (Division(var, 1, rows),), labels, weight[0])


def _factor(var: relax.Var, call: Any, place: int) -> Producer | None:
    """A product with one constant per channel."""
    shape, rank = extents(call.args[place]), len(extents(var))
    shape = [1] * (rank - len(shape)) + shape
    axes = [axis for axis, size in enumerate(shape) if size != 1]
    if len(axes) != 1 or extents(var)[axes[0]] != shape[axes[0]]:
        return None
    channels = _on_axis(np.arange(shape[axes[0]]), rank, axes[0])
    return Producer("previous", (Division(var, place, channels),), channels, channels.size)


def _on_axis(channels: np.ndarray, rank: int, axis: int) -> np.ndarray:
    shape = [1] * rank
    shape[axis] = len(channels)
    return channels.reshape(shape)
