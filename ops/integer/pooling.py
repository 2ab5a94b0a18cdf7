"""Integer average and max pooling."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from tvm import relax

from ..registry import define
from .arithmetic import exact_reals, integers, requantize


def _pooled_type(call: relax.Call) -> relax.TensorType:
    n, height, width, channels = (int(d) for d in call.args[0].ty.shape.values)
    attrs = call.attrs
    (kernel_h, kernel_w), (stride_h, stride_w) = attrs["kernel"], attrs["strides"]
    top, left, bottom, right = attrs["padding"]
    dilation_h, dilation_w = attrs["dilation"]
    out_h = (height + top + bottom - dilation_h * (kernel_h - 1) - 1) // stride_h + 1
    out_w = (width + left + right - dilation_w * (kernel_w - 1) - 1) // stride_w + 1
    return relax.TensorType((n, out_h, out_w, channels), "int8")


def _window_sums(
    data: torch.Tensor, kernel: tuple[int, int], strides: tuple[int, int]
) -> torch.Tensor:
    """Sums over windows of an NCHW float64 tensor, exact for integers."""
    n, channels, height, width = data.shape
    ones = torch.ones((1, 1, *kernel), dtype=data.dtype)
    sums = F.conv2d(data.reshape(n * channels, 1, height, width), ones, stride=strides)
    return sums.reshape(n, channels, sums.shape[-2], sums.shape[-1])


@define("fewbits.average_pool2d", "Integer average pooling, NHWC", _pooled_type)
def average_pool2d(
    call: relax.Call, x: torch.Tensor, bias: torch.Tensor, multiplier: torch.Tensor
) -> torch.Tensor:
    """Sum over the window, requantized with the integers for the number of elements summed."""
    attrs = call.attrs
    kernel, strides = tuple(attrs["kernel"]), tuple(attrs["strides"])
    top, left, bottom, right = attrs["padding"]
    border = (left, right, top, bottom)
    include = bool(attrs["count_include_pad"])
    data = F.pad(
        exact_reals(x).permute(0, 3, 1, 2), border, value=attrs["input_zero"] if include else 0
    )
    sums = _window_sums(data, kernel, strides).permute(0, 2, 3, 1)
    inside = torch.ones((1, 1, x.shape[1], x.shape[2]), dtype=torch.float64)
    inside = F.pad(inside, border, value=1.0 if include else 0.0)
    counts = integers(_window_sums(inside, kernel, strides)).permute(0, 2, 3, 1)
    # A window wholly in the padding has no element; it is given the integers of one.
    index = (counts - 1).clamp(min=0)
    return requantize(
        integers(sums),
        integers(bias)[index],
        integers(multiplier)[index],
        attrs["shift"],
        attrs["minimum"],
        attrs["maximum"],
    )


@define("fewbits.max_pool2d", "Integer max pooling, NHWC", _pooled_type)
def max_pool2d(call: relax.Call, x: torch.Tensor) -> torch.Tensor:
    """Largest element of the window that lies inside the image."""
    attrs = call.attrs
    top, left, bottom, right = attrs["padding"]
    data = F.pad(x.to(torch.float32).permute(0, 3, 1, 2), (left, right, top, bottom), value=-128.0)
    pooled = F.max_pool2d(
        data, tuple(attrs["kernel"]), tuple(attrs["strides"]), dilation=tuple(attrs["dilation"])
    )
    return pooled.permute(0, 2, 3, 1).to(torch.int8)
