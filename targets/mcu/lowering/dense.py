"""Fully connected layers: `kernels/dense.h`, and many rows as a convolution of size one."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from tvm import relax

from ..program import Buffer, KernelCall
from ..target import McuTarget
from . import gemm
from .window import attributes


def lower_dense(
    layer: str,
    call: relax.Call,
    inputs: Sequence[Buffer],
    output: Buffer,
    constants: Mapping[int, np.ndarray],
    target: McuTarget,
) -> KernelCall:
    """``fewbits.dense(x, weight, bias, multiplier)`` with constant weights."""
    x = inputs[0]
    rows = math.prod(x.shape[:-1])
    requantization = gemm.Requantization.of(attributes(call), constants[2], constants[3])
    product = gemm.choose(target, constants[1], requantization)
    if rows >= max(product.pixels, 2):
        return gemm.convolution_call(
            layer, "dense", x, output, gemm.rows_window(rows, constants[1]), constants[1],
            requantization, product, input_zero=0,
        )  # fmt: skip
    return gemm.dense_call(layer, "dense", x, output, rows, constants[1], requantization, product)
