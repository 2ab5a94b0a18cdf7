"""Integer convolution, dense and matrix product."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from tvm import relax

from ..registry import define
from .arithmetic import exact_reals, integers, requantize


def _convolution_type(call: relax.Call) -> relax.TensorType:
    n, height, width, _ = (int(d) for d in call.args[0].ty.shape.values)
    channels, kernel_h, kernel_w, _ = (int(d) for d in call.args[1].ty.shape.values)
    top, left, bottom, right = call.attrs["padding"]
    (stride_h, stride_w), (dilation_h, dilation_w) = call.attrs["strides"], call.attrs["dilation"]
    out_h = (height + top + bottom - dilation_h * (kernel_h - 1) - 1) // stride_h + 1
    out_w = (width + left + right - dilation_w * (kernel_w - 1) - 1) // stride_w + 1
    return relax.TensorType((n, out_h, out_w, channels), "int8")


@define("fewbits.conv2d", "Integer 2-D convolution, NHWC and OHWI", _convolution_type)
def conv2d(
    call: relax.Call,
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor,
    multiplier: torch.Tensor,
) -> torch.Tensor:
    """Sum of products over the window, padded with the input zero point; then requantize."""
    attrs = call.attrs
    top, left, bottom, right = attrs["padding"]
    data = F.pad(
        exact_reals(x).permute(0, 3, 1, 2), (left, right, top, bottom), value=attrs["input_zero"]
    )
    accumulator = F.conv2d(
        data,
        exact_reals(weight).permute(0, 3, 1, 2),
        stride=tuple(attrs["strides"]),
        dilation=tuple(attrs["dilation"]),
        groups=attrs["groups"],
    )
    return requantize(
        integers(accumulator.permute(0, 2, 3, 1)),
        integers(bias),
        integers(multiplier),
        attrs["shift"],
        attrs["minimum"],
        attrs["maximum"],
    )


def _dense_type(call: relax.Call) -> relax.TensorType:
    leading = [int(d) for d in call.args[0].ty.shape.values][:-1]
    return relax.TensorType((*leading, int(call.args[1].ty.shape.values[0])), "int8")


@define("fewbits.dense", "Integer fully connected layer over the last axis", _dense_type)
def dense(
    call: relax.Call,
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor,
    multiplier: torch.Tensor,
) -> torch.Tensor:
    """Sum of products with each weight row; then requantize."""
    attrs = call.attrs
    accumulator = exact_reals(x) @ exact_reals(weight).T
    return requantize(
        integers(accumulator),
        integers(bias),
        integers(multiplier),
        attrs["shift"],
        attrs["minimum"],
        attrs["maximum"],
    )


def _matmul_type(call: relax.Call) -> relax.TensorType:
    a = [int(d) for d in call.args[0].ty.shape.values]
    b = [int(d) for d in call.args[1].ty.shape.values]
    batch = list(torch.broadcast_shapes(a[:-2], b[:-2]))
    return relax.TensorType((*batch, a[-2], b[-1]), "int8")


@define("fewbits.matmul", "Integer matrix product of two run-time values", _matmul_type)
def matmul(call: relax.Call, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Sum of products of both operands less their zero points; then requantize."""
    attrs = call.attrs
    accumulator = (exact_reals(a) - attrs["a_zero"]) @ (exact_reals(b) - attrs["b_zero"])
    return requantize(
        integers(accumulator),
        attrs["bias"],
        attrs["multiplier"],
        attrs["shift"],
        attrs["minimum"],
        attrs["maximum"],
    )
