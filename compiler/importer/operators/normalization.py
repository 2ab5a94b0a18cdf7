"""Normalization layers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from tvm import relax

from ..node import Node, Result
from ..values import constant

op: Any = relax.op


def _batch_norm(node: Node) -> Result:
    training = node.opset >= 14 and node.int("training_mode", 0)
    if training or node.output_count > 1:
        raise node.refuse("training mode", "export the model for inference (model.eval())")
    normalized = op.nn.batch_norm(
        node[0],
        node[1],
        node[2],
        node[3],
        node[4],
        axis=1 if node.rank() > 1 else 0,
        epsilon=node.float("epsilon", 1e-5),
        momentum=node.float("momentum", 0.9),
        training=False,
    )
    return relax.TupleGetItem(normalized, 0)


def _full(node: Node, shape: Sequence[int], value: float, dtype: str) -> relax.Expr:
    return constant(np.full(tuple(shape), value, dtype=dtype))


def _affine(node: Node, index: int, shape: Sequence[int], missing: float) -> relax.Expr:
    """Input `index` (a scale or bias) of exactly `shape`; constant `missing` if left out."""
    if not node.has(index):
        return _full(node, shape, missing, node.dtype())
    array = node.constant(index)
    if array is not None:
        return constant(np.ascontiguousarray(np.broadcast_to(array, tuple(shape))))
    if node.shape(index) == shape:
        return node[index]
    return op.broadcast_to(node[index], tuple(shape))


def _check_stash(node: Node) -> None:
    if node.int("stash_type", 1) != 1 and node.dtype() != "float64":
        raise node.refuse(f"stash_type = {node.int('stash_type', 1)}")


def _layer_norm(node: Node) -> Result | tuple[Result, ...]:
    _check_stash(node)
    rank, axis = node.rank(), node.axis("axis", -1)
    axes = list(range(axis, rank))
    shape = node.shape(0)[axis:]
    epsilon = node.float("epsilon", 1e-5)
    normalized = op.nn.layer_norm(
        node[0],
        _affine(node, 1, shape, 1.0),
        _affine(node, 2, shape, 0.0),
        axes=axes,
        epsilon=epsilon,
    )
    if node.output_count == 1:
        return normalized
    mean = node.emit(op.mean(node[0], axis=axes, keepdims=True))
    centred = node.emit(op.subtract(node[0], mean))
    variance = op.mean(op.multiply(centred, centred), axis=axes, keepdims=True)
    deviation = op.divide(node.scalar(1.0), op.sqrt(op.add(variance, node.scalar(epsilon))))
    return normalized, mean, deviation


def _rms_norm(node: Node) -> Result:
    _check_stash(node)
    shape, axis = node.shape(0), node.axis("axis", -1)
    axes = list(range(axis, node.rank()))
    weight = _affine(node, 1, shape[axis:], 1.0)
    epsilon = node.float("epsilon", 1e-5)
    if axis > 0:
        return op.nn.rms_norm(node[0], weight, axes=axes, epsilon=epsilon)
    # Relax's operator wants an axis that is not normalized.
    flat, size = op.reshape(node[0], (1, math.prod(shape))), (math.prod(shape),)
    normalized = op.nn.rms_norm(flat, op.reshape(weight, size), axes=[1], epsilon=epsilon)
    return op.reshape(normalized, shape)


def _instance_norm(node: Node) -> Result:
    return op.nn.instance_norm(
        node[0],
        node[1],
        node[2],
        channel_axis=1,
        axes=list(range(2, node.rank())),
        epsilon=node.float("epsilon", 1e-5),
    )


def _per_channel(node: Node, index: int, channels: int, groups: int) -> relax.Expr:
    """GroupNormalization's scale or bias: per channel since opset 21, per group before."""
    if node.shape(index) == (channels,):
        return node[index]
    if node.shape(index) != (groups,):
        raise node.error("invalid-node", f"input {index} has shape {node.shape(index)}")
    repeated = channels // groups
    array = node.constant(index)
    if array is not None:
        return constant(array.repeat(repeated))
    column = op.broadcast_to(op.reshape(node[index], (groups, 1)), (groups, repeated))
    return op.reshape(column, (channels,))


def _group_norm(node: Node) -> Result:
    groups, channels = node.int("num_groups", 0), node.shape(0)[1]
    if groups < 1 or channels % groups:
        raise node.error("invalid-node", f"{channels} channels in {groups} groups")
    return op.nn.group_norm(
        node[0],
        _per_channel(node, 1, channels, groups),
        _per_channel(node, 2, channels, groups),
        num_groups=groups,
        channel_axis=1,
        axes=list(range(2, node.rank())),
        epsilon=node.float("epsilon", 1e-5),
    )


def _lp_normalization(node: Node) -> Result:
    """x over its norm along an axis; where the norm is zero the result is zero."""
    axis, order = node.axis("axis", -1), node.int("p", 2)
    if order == 1:
        norm = op.sum(op.abs(node[0]), axis=axis, keepdims=True)
    elif order == 2:
        norm = op.sqrt(op.sum(op.multiply(node[0], node[0]), axis=axis, keepdims=True))
    else:
        raise node.error("invalid-node", f"p = {order}")
    norm = node.emit(norm)
    safe = op.where(op.equal(norm, node.scalar(0.0)), node.scalar(1.0), norm)
    return op.divide(node[0], safe)


def _local_response(node: Node) -> Result:
    """LRN: x / (bias + alpha / size * sum of squares over neighbouring channels)^beta."""
    size = node.int("size", 0)
    if size < 1:
        raise node.error("invalid-node", f"size = {size}")
    shape = node.shape(0)
    channels, rest = shape[1], math.prod(shape[2:])
    squares = op.reshape(op.multiply(node[0], node[0]), (shape[0], 1, channels, rest))
    before = (size - 1) // 2
    mean = op.nn.avg_pool2d(
        squares, (size, 1), (1, 1), (before, 0, size - 1 - before, 0), count_include_pad=True
    )
    scaled = op.multiply(op.reshape(mean, shape), node.scalar(node.float("alpha", 1e-4)))
    base = op.add(scaled, node.scalar(node.float("bias", 1.0)))
    return op.divide(node[0], op.power(base, node.scalar(node.float("beta", 0.75))))


def _mean_variance(node: Node) -> Result:
    axes = [node.normalize_axis(a) for a in node.ints("axes", (0, 2, 3)) or ()]
    mean = op.mean(node[0], axis=axes, keepdims=True)
    centred = node.emit(op.subtract(node[0], mean))
    variance = op.mean(op.multiply(centred, centred), axis=axes, keepdims=True)
    return op.divide(centred, op.add(op.sqrt(variance), node.scalar(1e-9)))


CONVERTERS = {
    "BatchNormalization": _batch_norm,
    "LayerNormalization": _layer_norm,
    "RMSNormalization": _rms_norm,
    "InstanceNormalization": _instance_norm,
    "GroupNormalization": _group_norm,
    "LpNormalization": _lp_normalization,
    "LRN": _local_response,
    "MeanVarianceNormalization": _mean_variance,
}
