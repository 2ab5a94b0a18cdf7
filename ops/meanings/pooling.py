"""Maximum and average pooling in one, two and three dimensions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F

from ..registry import meaning
from .common import Call, ints, is_integer, relayout
from .convolution import spatial_padding, torch_padding

Tensor = torch.Tensor

_SPACE = {1: "NCW", 2: "NCHW", 3: "NCDHW"}
_MAX: dict[int, Callable[..., Any]] = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}


def _windows(call: Call, spatial: tuple[int, ...]) -> tuple[tuple[int, ...], ...]:
    """Kernel, stride, dilation, padding before, padding after, overhang of the last window."""
    attrs = call.attrs
    rank = len(spatial)
    kernel, strides, dilation = ints(attrs.pool_size), ints(attrs.strides), ints(attrs.dilation)
    before, after = spatial_padding(ints(attrs.padding), rank)
    overhang = []
    for axis, size in enumerate(spatial):
        slack = size + before[axis] + after[axis] - dilation[axis] * (kernel[axis] - 1) - 1
        missing = -slack % strides[axis] if attrs.ceil_mode else 0
        overhang.append(missing)
    return kernel, strides, dilation, before, after, tuple(overhang)


def _channels_first(call: Call, x: Tensor) -> tuple[Tensor, str]:
    plain = _SPACE[x.dim() - 2]
    return relayout(x, call.attrs.layout, plain), plain


def _lowest(x: Tensor) -> float:
    return float("-inf") if not is_integer(x) else float(torch.iinfo(x.dtype).min)


@meaning("relax.nn.max_pool1d", "relax.nn.max_pool2d", "relax.nn.max_pool3d")
def max_pool(call: Call, data: Tensor) -> Tensor:
    """Largest element of each window that lies inside the image."""
    x, plain = _channels_first(call, data)
    rank = x.dim() - 2
    kernel, strides, dilation, before, after, overhang = _windows(call, tuple(x.shape[2:]))
    after = tuple(a + o for a, o in zip(after, overhang, strict=True))
    lowest = _lowest(data)
    if is_integer(x):
        x = x.to(torch.float64)
    x = F.pad(x, torch_padding(before, after), value=lowest)
    result = _MAX[rank](x, kernel, strides, 0, dilation)
    return relayout(result.to(data.dtype), plain, call.attrs.out_layout or call.attrs.layout)


def _window_sums(
    x: Tensor, kernel: tuple[int, ...], strides: tuple[int, ...], dilation: tuple[int, ...]
) -> Tensor:
    """Sums over windows of [N, C, spatial...]."""
    rank = len(kernel)
    if all(step == 1 for step in dilation):
        if rank == 1:
            sums = F.avg_pool2d(x.unsqueeze(-2), (1, *kernel), (1, *strides), divisor_override=1)
            return sums.squeeze(-2)
        pool = F.avg_pool2d if rank == 2 else F.avg_pool3d
        return pool(x, kernel, strides, divisor_override=1)
    for axis in range(rank):
        reach = dilation[axis] * (kernel[axis] - 1) + 1
        count = (x.shape[2 + axis] - reach) // strides[axis] + 1
        span = (count - 1) * strides[axis] + 1
        parts = []
        for tap in range(kernel[axis]):
            index = [slice(None)] * x.dim()
            start = tap * dilation[axis]
            index[2 + axis] = slice(start, start + span, strides[axis])
            parts.append(x[tuple(index)])
        x = torch.stack(parts).sum(0)
    return x


@meaning("relax.nn.avg_pool1d", "relax.nn.avg_pool2d", "relax.nn.avg_pool3d")
def avg_pool(call: Call, data: Tensor) -> Tensor:
    """Mean of each window: of what lies inside the image, or with `count_include_pad` of the
    padded image too, but never of what hangs over its end in ceil mode."""
    x, plain = _channels_first(call, data)
    kernel, strides, dilation, before, after, overhang = _windows(call, tuple(x.shape[2:]))
    x = x.to(torch.float64) if is_integer(x) else x
    counted = torch.ones((1, 1, *x.shape[2:]), dtype=x.dtype, device=x.device)
    pads, tail = torch_padding(before, after), torch_padding((0,) * len(kernel), overhang)
    counted = F.pad(F.pad(counted, pads, value=float(call.attrs.count_include_pad)), tail)
    sums = _window_sums(F.pad(F.pad(x, pads), tail), kernel, strides, dilation)
    counts = _window_sums(counted, kernel, strides, dilation).clamp(min=1)
    result = sums / counts
    result = torch.trunc(result).to(data.dtype) if is_integer(data) else result
    return relayout(result, plain, call.attrs.out_layout or call.attrs.layout)


@meaning(
    "relax.nn.adaptive_avg_pool1d", "relax.nn.adaptive_avg_pool2d", "relax.nn.adaptive_avg_pool3d"
)
def adaptive_avg_pool(call: Call, data: Tensor) -> Tensor:
    """Means of as many, nearly equal, windows as `output_size` says."""
    x, plain = _channels_first(call, data)
    spatial = tuple(x.shape[2:])
    size = spatial if call.attrs.output_size is None else ints(call.attrs.output_size)
    if len(size) == 1:
        size = size * len(spatial)
    for axis, (length, count) in enumerate(zip(spatial, size, strict=True)):
        bounds = [(i * length // count, -(-(i + 1) * length // count)) for i in range(count)]
        means = [x.narrow(2 + axis, a, b - a).mean(2 + axis, keepdim=True) for a, b in bounds]
        x = torch.cat(means, 2 + axis)
    return relayout(x, plain, call.attrs.out_layout or call.attrs.layout)
