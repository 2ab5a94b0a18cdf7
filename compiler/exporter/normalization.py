"""Batch, layer, group, instance and RMS normalization."""

from __future__ import annotations

import numpy as np

from .graph import Node, Unsupported, integers
from .reduction import reduce_step
from .rules import rule


@rule("relax.nn.batch_norm")
def _batch_norm(node: Node) -> None:
    attrs = node.attrs
    if attrs.training:
        raise Unsupported("batch normalization in training mode")
    if node.axis() != 1:
        raise Unsupported(f"batch normalization over axis {node.axis()}, ONNX has axis 1 only")
    gamma, beta = _scale_and_center(node, (node.shape(3)[0],))
    inputs = (node[0], gamma, beta, node[3], node[4])
    # The other two results, the unchanged statistics, exist in training only.
    node.graph.add(
        "BatchNormalization", inputs, node.outputs[:1], node.name, {"epsilon": attrs.epsilon}
    )


def _scale_and_center(node: Node, shape: tuple[int, ...]) -> tuple[str, str]:
    """Names of gamma and beta, where the attributes say that they count."""
    gamma = node[1] if node.attrs.scale else node.constant(np.ones(shape), "gamma")
    beta = node[2] if node.attrs.center else node.constant(np.zeros(shape), "beta")
    return gamma, beta


def _axes(node: Node) -> list[int]:
    rank = node.rank()
    return sorted(axis % rank for axis in integers(node.attrs.axes))


def _trailing(node: Node) -> bool:
    axes = _axes(node)
    return axes == list(range(node.rank() - len(axes), node.rank()))


@rule("relax.nn.layer_norm")
def _layer_norm(node: Node) -> None:
    axes = _axes(node)
    gamma, beta = _scale_and_center(node, node.shape(1))
    if node.graph.opset >= 17 and _trailing(node):
        epsilon = float(node.attrs.epsilon)
        node.done("LayerNormalization", node[0], gamma, beta, axis=axes[0], epsilon=epsilon)
        return
    centered = node.step("Sub", node[0], reduce_step(node, "ReduceMean", node[0], axes))
    normal = _over_root_mean_square(node, centered, axes)
    scaled = node.step("Mul", normal, _spread(node, gamma, axes))
    node.done("Add", scaled, _spread(node, beta, axes))


def _over_root_mean_square(node: Node, value: str, axes: list[int]) -> str:
    square = node.step("Mul", value, value)
    mean = reduce_step(node, "ReduceMean", square, axes)
    shifted = node.step("Add", mean, node.constant(node.attrs.epsilon, "epsilon"))
    return node.step("Div", value, node.step("Sqrt", shifted))


def _spread(node: Node, vector: str, axes: list[int]) -> str:
    """Reshape a parameter over `axes` so that it broadcasts over the data."""
    if _trailing(node):
        return vector
    shape = [extent if axis in axes else 1 for axis, extent in enumerate(node.extents())]
    return node.step("Reshape", vector, node.sizes(shape, "broadcast"))


@rule("relax.nn.rms_norm")
def _rms_norm(node: Node) -> None:
    axes = _axes(node)
    normal = _over_root_mean_square(node, node[0], axes)
    node.done("Mul", normal, _spread(node, node[1], axes))


def _require_channels_first(node: Node) -> None:
    rank = node.rank()
    channel = int(node.attrs.channel_axis) % rank
    if channel != 1 or _axes(node) != list(range(2, rank)):
        raise Unsupported("normalization over axes other than those after the channels")


@rule("relax.nn.instance_norm")
def _instance_norm(node: Node) -> None:
    _require_channels_first(node)
    gamma, beta = _scale_and_center(node, node.shape(1))
    epsilon = float(node.attrs.epsilon)
    node.done("InstanceNormalization", node[0], gamma, beta, epsilon=epsilon)


@rule("relax.nn.group_norm")
def _group_norm(node: Node) -> None:
    # GroupNormalization changed its meaning between opsets 18 and 21; this form never did.
    _require_channels_first(node)
    shape = node.extents()
    groups = int(node.attrs.num_groups)
    gamma, beta = _scale_and_center(node, node.shape(1))
    grouped = node.step("Reshape", node[0], node.int64((0, groups, -1), "groups"))
    ones = node.constant(np.ones(groups), "ones")
    zeros = node.constant(np.zeros(groups), "zeros")
    epsilon = float(node.attrs.epsilon)
    normal = node.step("InstanceNormalization", grouped, ones, zeros, epsilon=epsilon)
    restored = node.step("Reshape", normal, node.sizes(shape, "shape"))
    channels = node.int64([-1] + [1] * (len(shape) - 2), "broadcast")
    scaled = node.step("Mul", restored, node.step("Reshape", gamma, channels))
    node.done("Add", scaled, node.step("Reshape", beta, channels))
