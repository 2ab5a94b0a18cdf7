"""Chooses the inner product of a layer, lays its constants out for it and writes the call."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from ..program import Argument, Buffer, Constant, KernelCall, Scratch
from ..target import McuTarget
from .layouts import pack_quads, table_quads
from .window import Window


@dataclasses.dataclass(frozen=True, eq=False)
class Requantization:
    """From accumulators to int8: `bias` and `multiplier` are int32 [O]."""

    bias: np.ndarray
    multiplier: np.ndarray
    shift: int
    minimum: int
    maximum: int

    @classmethod
    def of(
        cls, attrs: Mapping[str, Any], bias: np.ndarray, multiplier: np.ndarray
    ) -> Requantization:
        """From an operator's constants and attributes."""
        shift, low, high = (int(attrs[name]) for name in ("shift", "minimum", "maximum"))
        return cls(bias, multiplier, shift, low, high)

    @property
    def literals(self) -> tuple[int, int, int]:
        """The last arguments of every kernel."""
        return (self.shift, self.minimum, self.maximum)


@dataclasses.dataclass(frozen=True)
class InnerProduct:
    """One of the inner products of `kernels/`.

    Attributes:
        name: the suffix of the C functions.
        pixels: output pixels that share a load of weights.
        note: why a faster one was not taken, or None.
    """

    name: str
    pixels: int
    note: str | None = None


def choose(target: McuTarget, weight: np.ndarray, requantization: Requantization) -> InnerProduct:
    """The fastest inner product for weights [O, ...] on a target."""
    if target.family == "arm":
        return InnerProduct("quads", 2 if target.long_multiply else 1)
    return InnerProduct("quads", 4)


def _constants(
    weight: np.ndarray, requantization: Requantization, groups: int
) -> tuple[Constant, Constant]:
    """Weights [O, K] and requantization table, laid out group after group."""
    weights = np.split(weight, groups)
    biases = np.split(requantization.bias, groups)
    multipliers = np.split(requantization.multiplier, groups)
    packed = np.stack([pack_quads(w) for w in weights])
    table = np.stack([table_quads(b, m) for b, m in zip(biases, multipliers, strict=True)])
    return Constant("weights", packed), Constant("requantization", table)


def rows_window(rows: int, weight: np.ndarray) -> Window:
    """A fully connected layer on several rows, as a convolution of size one along a line."""
    outputs, depth = weight.shape
    return Window(
        1, 1, rows, depth, 1, rows, outputs, 1, 1, (1, 1), (0, 0, 0, 0), (1, 1), 1
    )  # fmt: skip


def convolution_call(
    layer: str,
    operator: str,
    x: Buffer,
    output: Buffer,
    window: Window,
    weight: np.ndarray,
    requantization: Requantization,
    product: InnerProduct,
    input_zero: int,
) -> KernelCall:
    """A call of ``fb_conv2d_*``, for weights [O, kh · kw · I] int8."""
    packed, table = _constants(weight, requantization, window.groups)
    scratch = product.pixels * window.depth
    if not (window.runs_together and window.stays_inside):
        scratch += product.pixels * window.run
    arguments: tuple[Argument, ...] = (
        x, output, packed, table, Scratch(),
        window.batch, window.in_h, window.in_w, window.channels,
        window.out_h, window.out_w, window.outputs, window.kernel_h, window.kernel_w,
        *window.strides, window.padding[0], window.padding[1], *window.dilation, window.groups,
        input_zero, *requantization.literals,
    )  # fmt: skip
    return KernelCall(
        layer=layer,
        operator=operator,
        function=f"fb_conv2d_{product.name}",
        header="conv.h",
        arguments=arguments,
        inputs=(x,),
        outputs=(output,),
        scratch=scratch,
        overlap=(window.overlap(product.pixels),),
        macs=window.macs,
        note=product.note,
    )


def dense_call(
    layer: str,
    operator: str,
    x: Buffer,
    output: Buffer,
    rows: int,
    weight: np.ndarray,
    requantization: Requantization,
    product: InnerProduct,
) -> KernelCall:
    """A call of ``fb_dense_*``, for weights [O, K] int8. Rows are read while others are written,
    so input and output share no memory."""
    packed, table = _constants(weight, requantization, 1)
    outputs, depth = weight.shape
    return KernelCall(
        layer=layer,
        operator=operator,
        function=f"fb_dense_{product.name}",
        header="dense.h",
        arguments=(
            x, output, packed, table, rows, depth, outputs, *requantization.literals,
        ),
        inputs=(x,),
        outputs=(output,),
        overlap=(None,),
        macs=rows * depth * outputs,
        note=product.note,
    )  # fmt: skip
