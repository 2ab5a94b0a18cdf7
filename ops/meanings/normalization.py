"""Batch, layer, group, instance and RMS normalization."""

from __future__ import annotations

import torch

from ..registry import meaning
from .common import Call, ints

Tensor = torch.Tensor


def _along(vector: Tensor, like: Tensor, axis: int) -> Tensor:
    """A vector, shaped to broadcast along one axis."""
    shape = [1] * like.dim()
    shape[axis] = -1
    return vector.reshape(shape)


def _standardize(x: Tensor, axes: tuple[int, ...], epsilon: float) -> Tensor:
    centered = x - x.mean(axes, keepdim=True)
    variance = (centered * centered).mean(axes, keepdim=True)
    return centered / torch.sqrt(variance + epsilon)


@meaning("relax.nn.batch_norm")
def batch_norm(
    call: Call, x: Tensor, gamma: Tensor, beta: Tensor, mean: Tensor, variance: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Normalized data and the moving statistics; with `training`, by the data's own statistics."""
    attrs = call.attrs
    axis = int(attrs.axis) % x.dim()
    used_mean, used_variance = mean, variance
    if attrs.training:
        others = tuple(index for index in range(x.dim()) if index != axis)
        used_mean = x.mean(others)
        used_variance = ((x - _along(used_mean, x, axis)) ** 2).mean(others)
        momentum = float(attrs.momentum)
        mean = (1 - momentum) * mean + momentum * used_mean
        variance = (1 - momentum) * variance + momentum * used_variance
    deviation = torch.sqrt(_along(used_variance, x, axis) + float(attrs.epsilon))
    result = (x - _along(used_mean, x, axis)) / deviation
    if attrs.scale:
        result = result * _along(gamma, x, axis)
    if attrs.center:
        result = result + _along(beta, x, axis)
    return result, mean, variance


@meaning("relax.nn.layer_norm")
def layer_norm(call: Call, x: Tensor, gamma: Tensor, beta: Tensor) -> Tensor:
    """Zero mean and unit variance over `axes`, then scale and shift."""
    attrs = call.attrs
    result = _standardize(x, ints(attrs.axes), float(attrs.epsilon))
    if attrs.scale:
        result = result * gamma
    return result + beta if attrs.center else result


@meaning("relax.nn.rms_norm")
def rms_norm(call: Call, x: Tensor, weight: Tensor) -> Tensor:
    """Divided by the root mean square over `axes`, times the weight."""
    axes = ints(call.attrs.axes)
    square = (x * x).mean(axes, keepdim=True)
    return x * torch.rsqrt(square + float(call.attrs.epsilon)) * weight


@meaning("relax.nn.group_norm")
def group_norm(call: Call, x: Tensor, gamma: Tensor, beta: Tensor) -> Tensor:
    """Normalization over groups of channels together with `axes`."""
    attrs = call.attrs
    channel = int(attrs.channel_axis) % x.dim()
    groups = int(attrs.num_groups)
    shape = list(x.shape)
    split = [*shape[:channel], groups, shape[channel] // groups, *shape[channel + 1 :]]
    axes = tuple(a % x.dim() for a in ints(attrs.axes))
    reduced = tuple(a if a < channel else a + 1 for a in axes if a != channel)
    normal = _standardize(x.reshape(split), (channel + 1, *reduced), float(attrs.epsilon))
    result = normal.reshape(shape)
    if attrs.scale:
        result = result * _along(gamma, x, channel)
    return result + _along(beta, x, channel) if attrs.center else result


@meaning("relax.nn.instance_norm")
def instance_norm(call: Call, x: Tensor, gamma: Tensor, beta: Tensor) -> Tensor:
    """Normalization of every channel of every sample over `axes`."""
    attrs = call.attrs
    channel = int(attrs.channel_axis) % x.dim()
    result = _standardize(x, ints(attrs.axes), float(attrs.epsilon))
    if attrs.scale:
        result = result * _along(gamma, x, channel)
    return result + _along(beta, x, channel) if attrs.center else result
