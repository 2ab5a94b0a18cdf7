"""Fold constant scales and shifts, and with them batch norm, into the layers around them.

A convolution or constant matrix product followed by constant additions, multiplications and batch
norms becomes one with other weights and one bias: ``add(conv, constant [1, C, 1, 1])`` or
``add(matmul, constant [N])``. A scale or shift before a layer goes into its weights and bias where
padding allows. A batch norm that finds no layer becomes a multiplication and an addition.
"""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import numpy as np
from tvm import ir, relax

from ...ops.meanings.common import ints
from ..base import Pass, PassContext, register_pass
from ..rewrite import constant, operator_of
from . import families
from .fold_padding import fold_padding
from .graph import (
    Graph,
    array_of,
    dtype_of,
    key_of,
    op,
    rewrite,
    same_shape,
    shape_of,
    with_attributes,
)

_BATCH_NORM = "relax.nn.batch_norm[0]"
_AFFINE = ("relax.add", "relax.subtract", "relax.multiply", "relax.divide", "relax.negative")


@register_pass
@dataclasses.dataclass(frozen=True)
class FoldAffine(Pass):
    """Fold constant scales, shifts, batch norms and paddings into convolutions and matmuls."""

    name: ClassVar[str] = "fold-affine"

    def apply(self, module: ir.IRModule, context: PassContext) -> ir.IRModule:
        """The module with fewer layers; the same object if nothing could be folded."""
        module = rewrite(module, _AFTER)
        module = rewrite(module, _BEFORE)
        return fold_padding(module)


@dataclasses.dataclass(frozen=True)
class _Affine:
    """``scale * source + shift`` with float64 vectors along the channels (or of length 1)."""

    source: Any
    scale: np.ndarray
    shift: np.ndarray


def _channel_axis(operator: str, rank: int) -> int:
    return rank - 1 if operator == "relax.matmul" else 1


def _vector(expression: Any, rank: int, axis: int, channels: int) -> np.ndarray | None:
    """A constant that varies along the channel axis only, as float64 [C] or [1]."""
    array = array_of(expression)
    if array is None or array.dtype.kind != "f" or array.ndim > rank:
        return None
    shape = (1,) * (rank - array.ndim) + array.shape
    if any(size != 1 for index, size in enumerate(shape) if index != axis):
        return None
    vector = array.reshape(-1).astype(np.float64)
    return vector if vector.size in (1, channels) else None


def _affine(graph: Graph, value: Any, axis: int, channels: int, rank: int) -> _Affine | None:
    """A binding's value as one affine step, if it is one that keeps the shape."""
    key = key_of(graph, value)
    if key == _BATCH_NORM:
        return _normalization(graph.definition(value.tuple_value), axis, rank)
    if key not in _AFFINE:
        return None
    one, zero = np.ones(1), np.zeros(1)
    if key == "relax.negative":
        return _Affine(value.args[0], -one, zero)
    left, right = value.args
    vector = _vector(right, rank, axis, channels)
    swapped = vector is None
    if swapped:
        vector, left = _vector(left, rank, axis, channels), right
    if vector is None or not same_shape(left, value):
        return None
    if key == "relax.add":
        return _Affine(left, one, vector)
    if key == "relax.subtract":
        return _Affine(left, -one, vector) if swapped else _Affine(left, one, -vector)
    if key == "relax.multiply":
        return _Affine(left, vector, zero)
    if swapped or (vector == 0).any():
        return None
    return _Affine(left, 1 / vector, zero)


def _normalization(call: Any, axis: int, rank: int) -> _Affine | None:
    attrs = call.attrs
    arrays = [array_of(argument) for argument in call.args[1:]]
    if attrs.training or int(attrs.axis) % rank != axis or any(a is None for a in arrays):
        return None
    gamma, beta, mean, variance = (a.astype(np.float64) for a in arrays if a is not None)
    scale = 1 / np.sqrt(variance + float(attrs.epsilon))
    scale = scale * gamma if attrs.scale else scale
    return _Affine(call.args[0], scale, (beta if attrs.center else 0) - mean * scale)


# -- after a layer --


def _layer(graph: Graph, expression: Any) -> Any:
    """The call of a convolution or matmul with constant float weights that defines a variable."""
    kinds = (*families.CONVOLUTIONS, *families.TRANSPOSED_CONVOLUTIONS, "relax.matmul")
    call = graph.call(expression, *kinds)
    if call is None or not dtype_of(call).startswith("float"):
        return None
    weight = array_of(call.args[1])
    if weight is None or isinstance(call.args[0], ir.GenericConst):
        return None
    if operator_of(call) == "relax.matmul":
        return call if weight.ndim == 2 and len(shape_of(call.args[0])) > 1 else None
    attrs = call.attrs
    plain = str(attrs.data_layout)[:2] == "NC" and str(attrs.out_layout)[:2] == "NC"
    kernel = "IO" if operator_of(call) in families.TRANSPOSED_CONVOLUTIONS else "OI"
    return call if plain and str(attrs.kernel_layout)[:2] == kernel else None


def _fold_after(graph: Graph, var: Any, value: Any) -> relax.Expr | None:
    """The last step of a chain of affine steps that starts at a layer takes in the whole chain."""
    rank = len(shape_of(var))
    for operator in ("relax.nn.conv2d", "relax.matmul"):
        axis = _channel_axis(operator, rank)
        if rank < 2:
            return None
        found = _chain(graph, var, value, axis, operator == "relax.matmul")
        if found is not None:
            return found
    return None


def _chain(graph: Graph, var: Any, value: Any, axis: int, dense: bool) -> relax.Expr | None:
    shape = shape_of(var)
    rank, channels = len(shape), shape[axis]
    scale, shift, steps = np.ones(1), np.zeros(1), 0
    current: Any = value
    while True:
        step = _affine(graph, current, axis, channels, rank)
        if step is None or not _used_here_only(graph, current, step.source):
            return None
        shift = shift + scale * step.shift
        scale = scale * step.scale
        steps += 1
        layer = _layer(graph, step.source)
        if layer is not None and (operator_of(layer) == "relax.matmul") == dense:
            break
        current = graph.definition(step.source)
        if current is None:
            return None
    canonical = steps == 1 and operator_of(value) == "relax.add" and _is_bias(value, axis, channels)
    if canonical or not (np.isfinite(scale).all() and np.isfinite(shift).all()):
        return None
    scaled = _scaled_outputs(layer, np.broadcast_to(scale, (channels,)))
    if not np.any(shift):
        return scaled
    return op.add(scaled, _bias(np.broadcast_to(shift, (channels,)), rank, axis, dtype_of(var)))


def _used_here_only(graph: Graph, value: Any, source: Any) -> bool:
    """Whether a step is the only use of its source, so that the source may disappear."""
    alone = not isinstance(value, relax.TupleGetItem) or _first_result_only(graph, value)
    return alone and graph.used_once(source)


def _first_result_only(graph: Graph, item: Any) -> bool:
    """Whether nothing uses the other results of the call (a batch norm's statistics)."""
    uses: list[Any] = [graph.values[user] for user in graph.users[item.tuple_value]]
    alone = all(isinstance(use, relax.TupleGetItem) and use.index == 0 for use in uses)
    return alone and item.tuple_value not in graph.outputs


def _is_bias(add: Any, axis: int, channels: int) -> bool:
    """Whether an addition has the canonical form."""
    array, rank = array_of(add.args[1]), len(shape_of(add))
    return array is not None and array.shape == _bias_shape(rank, axis, channels)


def _bias_shape(rank: int, axis: int, channels: int) -> tuple[int, ...]:
    if axis == rank - 1:
        return (channels,)
    return tuple(channels if index == axis else 1 for index in range(rank))


def _bias(vector: np.ndarray, rank: int, axis: int, kind: str) -> ir.GenericConst:
    return constant(vector.reshape(_bias_shape(rank, axis, vector.size)).astype(kind))


def _scaled_outputs(layer: Any, scale: np.ndarray) -> relax.Call:
    """The layer with every output channel's weights multiplied."""
    weight = array_of(layer.args[1])
    assert weight is not None
    if operator_of(layer) == "relax.matmul":
        new = weight * scale
    elif operator_of(layer) in families.TRANSPOSED_CONVOLUTIONS:
        groups = int(layer.attrs.groups)
        split = weight.reshape(groups, -1, *weight.shape[1:]).astype(np.float64)
        by = scale.reshape(groups, 1, -1, *[1] * (weight.ndim - 2))
        new = (split * by).reshape(weight.shape)
    else:
        new = weight * scale.reshape(-1, *[1] * (weight.ndim - 1))
    return with_attributes(layer, [layer.args[0], constant(new.astype(weight.dtype))])


# -- before a layer --


def _fold_before(graph: Graph, _var: Any, call: Any) -> relax.Expr | None:
    """A scale or shift of a layer's input goes into the weights and the bias."""
    name = operator_of(call) or ""
    source = call.args[0]
    weight = array_of(call.args[1])
    if weight is None or weight.dtype.kind != "f" or not graph.used_once(source):
        return None
    if name == "relax.matmul" and weight.ndim != 2:
        return None
    if name != "relax.matmul" and str(call.attrs.data_layout)[:2] != "NC":
        return None
    shape = shape_of(source)
    rank, axis = len(shape), _channel_axis(name, len(shape))
    value = graph.definition(source)
    step = _affine(graph, value, axis, shape[axis], rank) if value is not None else None
    if step is None or not _may_go_into(graph, value, step, call):
        return None
    scale = np.broadcast_to(step.scale, (shape[axis],))
    shift = np.broadcast_to(step.shift, (shape[axis],))
    scaled, bias = _scaled_inputs(call, weight.astype(np.float64), scale, shift)
    layer = with_attributes(call, [step.source, constant(scaled.astype(weight.dtype))])
    if not np.any(shift):
        return layer
    out_rank = len(shape_of(call))
    return op.add(layer, _bias(bias, out_rank, _channel_axis(name, out_rank), dtype_of(call)))


def _may_go_into(graph: Graph, value: Any, step: _Affine, call: Any) -> bool:
    """A shift does not pass padding; an addition after a layer is that layer's bias."""
    if not (np.isfinite(step.scale).all() and np.isfinite(step.shift).all()):
        return False
    if isinstance(value, relax.TupleGetItem) and not _first_result_only(graph, value):
        return False
    padded = operator_of(call) != "relax.matmul" and any(ints(call.attrs.padding))
    return not (np.any(step.shift) and padded) and _layer(graph, step.source) is None


def _scaled_inputs(
    call: Any, weight: np.ndarray, scale: np.ndarray, shift: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Weights for the unscaled input, and what the shift adds to every output channel."""
    if operator_of(call) == "relax.matmul":
        return weight * scale[:, None], shift @ weight
    groups = int(call.attrs.groups)
    outputs, inputs = weight.shape[:2]
    split = weight.reshape(groups, outputs // groups, inputs, -1)
    per_group = (groups, 1, inputs, 1)
    bias = (split * shift.reshape(per_group)).sum((2, 3)).reshape(-1)
    return (split * scale.reshape(per_group)).reshape(weight.shape), bias


# -- a batch norm by itself --


def _plain(graph: Graph, var: Any, item: Any) -> relax.Expr | None:
    """A batch norm as a multiplication and an addition."""
    call: Any = graph.definition(item.tuple_value)
    rank = len(shape_of(var))
    axis = int(call.attrs.axis) % rank
    step = _normalization(call, axis, rank)
    if step is None:
        return None
    kind = dtype_of(var)
    scale, shift = (_bias(v, rank, axis, kind) for v in (step.scale, step.shift))
    return op.add(op.multiply(step.source, scale), shift)


_AFTER = {**dict.fromkeys(_AFFINE, (_fold_after,)), _BATCH_NORM: (_fold_after, _plain)}
_BEFORE = dict.fromkeys((*families.CONVOLUTIONS, "relax.matmul"), (_fold_before,))
