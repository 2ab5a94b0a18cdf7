"""Convolutions (depthwise ones apart) to `kernels/conv.h`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from tvm import relax

from ..program import Buffer, KernelCall
from ..target import McuTarget
from . import gemm
from .window import Window, attributes


def lower_conv2d(
    layer: str,
    call: relax.Call,
    inputs: Sequence[Buffer],
    output: Buffer,
    constants: Mapping[int, np.ndarray],
    target: McuTarget,
) -> KernelCall:
    """``fewbits.conv2d(x, weight, bias, multiplier)`` with constant weights."""
    x = inputs[0]
    attrs = attributes(call)
    outputs, kernel_h, kernel_w, _ = constants[1].shape
    weight = constants[1].reshape(outputs, -1)
    window = Window.of(x.shape, output.shape, (kernel_h, kernel_w), attrs)
    requantization = gemm.Requantization.of(attrs, constants[2], constants[3])
    product = gemm.choose(target, weight, requantization, window.groups)
    if window.is_dense and window.batch == 1:
        return gemm.dense_call(layer, "conv2d", x, output, 1, weight, requantization, product)
    return gemm.convolution_call(
        layer, "conv2d", x, output, window, weight, requantization, product,
        input_zero=int(attrs["input_zero"]),
    )  # fmt: skip
