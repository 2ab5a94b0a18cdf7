"""Chooses the inner product of a layer, lays its constants out for it and writes the call."""

from __future__ import annotations

import dataclasses
from typing import Literal

import numpy as np

from ..program import Argument, Buffer, Constant, KernelCall, Scratch
from ..target import McuTarget
from .layouts import (
    pack_bytes,
    pack_dense_pairs,
    pack_pairs,
    pack_quads,
    pairs_hold,
    reach,
    table_bytes,
    table_dense_pairs,
    table_pairs,
    table_quads,
)
from .window import Attributes, Window

FB_BYTES_ANY, FB_BYTES_WIDE, FB_BYTES_NARROW = range(3)


@dataclasses.dataclass(frozen=True, eq=False)
class Requantization:
    """From accumulators to int8: `bias` and `multiplier` are int32 [O]."""

    bias: np.ndarray
    multiplier: np.ndarray
    shift: int
    minimum: int
    maximum: int

    @classmethod
    def of(cls, attrs: Attributes, bias: np.ndarray, multiplier: np.ndarray) -> Requantization:
        """From an operator's constants and attributes."""
        shift, low, high = (int(attrs[name]) for name in ("shift", "minimum", "maximum"))
        return cls(bias, multiplier, shift, low, high)


@dataclasses.dataclass(frozen=True)
class InnerProduct:
    """One of the inner products of `kernels/`.

    Attributes:
        name: the suffix of the C functions.
        pixels: output pixels that share a load of weights.
        note: why a faster one was not taken, or None.
        range: for "bytes", how large numbers become: a value of `FB_BYTES_*`.
    """

    name: Literal["quads", "bytes", "pairs"]
    pixels: int
    note: str | None = None
    range: int = FB_BYTES_ANY

    def constants(
        self, weight: np.ndarray, requantization: Requantization, window: Window | None = None
    ) -> tuple[Constant, Constant]:
        """Weights [O, K] and requantization table of a convolution, group after group; without a
        window those of a fully connected layer."""
        groups = window.groups if window else 1
        packed, tables = [], []
        for w, b, m in zip(
            np.split(weight, groups),
            np.split(requantization.bias, groups),
            np.split(requantization.multiplier, groups),
            strict=True,
        ):
            if self.name == "pairs":
                packed.append(pack_pairs(w) if window else pack_dense_pairs(w))
                layout = table_pairs if window else table_dense_pairs
                tables.append(layout(b, m, requantization.shift))
            elif self.name == "bytes":
                packed.append(pack_bytes(w))
                gathered = table_bytes(w, b, m, requantization.shift)
                tables.append(gathered if window else table_quads(b, m))
            else:
                packed.append(pack_quads(w))
                tables.append(table_quads(b, m))
        return Constant("weights", np.stack(packed)), Constant("requantization", np.stack(tables))

    def literals(self, requantization: Requantization) -> tuple[int, ...]:
        """The last arguments of its functions."""
        limits = (requantization.minimum, requantization.maximum)
        numbers = (self.range,) if self.name == "bytes" else ()
        return (requantization.shift, *limits, *numbers)

    def scratch(self, window: Window) -> int:
        """Bytes of scratch memory for a convolution: a block's activations, and runs that are put
        together (see conv.h)."""
        in_place = window.runs_together and window.stays_inside
        if self.name != "pairs":
            return self.pixels * (window.depth + (0 if in_place else window.run))
        quads = -(-window.depth // 4)
        spare = 4 * quads if window.run % 4 else 0 if in_place else window.run
        return self.pixels * (8 * quads + spare)


def choose(
    target: McuTarget, weight: np.ndarray, requantization: Requantization, groups: int = 1
) -> InnerProduct:
    """The fastest inner product for weights [O, ...] on a target."""
    if target.family != "arm":
        return InnerProduct("quads", 4)
    if not target.long_multiply:
        found = _range(weight, requantization)
        slow = "sums may leave 30 bits" if found == FB_BYTES_ANY else None
        return InnerProduct("bytes", 1, slow, found)
    if not target.dsp:
        return InnerProduct("quads", 2)
    shift = requantization.shift
    if shift > 8 or (requantization.multiplier.astype(np.int64) << shift >= 2**31).any():
        return InnerProduct("quads", 2, "no SMLAD: the layer's scale is above 1/2")
    parts = zip(np.split(weight, groups), np.split(requantization.bias, groups), strict=True)
    if not all(pairs_hold(w, b, shift) for w, b in parts):
        return InnerProduct("quads", 2, "no SMLAD: sums may leave 24 bits")
    return InnerProduct("pairs", 3)


def _range(weight: np.ndarray, requantization: Requantization) -> int:
    """The cheapest multiplication of "bytes" that holds all sums (see gemm_armv6m.h)."""
    multiplier = requantization.multiplier.astype(np.int64)
    sums = reach(weight, requantization.bias, requantization.shift)
    if requantization.shift == 0 and (sums * multiplier < 2**47).all():
        return FB_BYTES_NARROW
    if max(sums.max(), multiplier.max()) < 2**30:
        return FB_BYTES_WIDE
    return FB_BYTES_ANY


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
    packed, table = product.constants(weight, requantization, window)
    arguments: tuple[Argument, ...] = (
        x, output, packed, table, Scratch(),
        window.batch, window.in_h, window.in_w, window.channels,
        window.out_h, window.out_w, window.outputs, window.kernel_h, window.kernel_w,
        *window.strides, window.padding[0], window.padding[1], *window.dilation, window.groups,
        input_zero, *product.literals(requantization),
    )  # fmt: skip
    return KernelCall(
        layer=layer,
        operator=operator,
        function=f"fb_conv2d_{product.name}",
        header="conv.h",
        arguments=arguments,
        inputs=(x,),
        outputs=(output,),
        scratch=product.scratch(window),
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
    packed, table = product.constants(weight, requantization)
    outputs, depth = weight.shape
    return KernelCall(
        layer=layer,
        operator=operator,
        function=f"fb_dense_{product.name}",
        header="dense.h",
        arguments=(
            x, output, packed, table, rows, depth, outputs,
            *product.literals(requantization),
        ),
        inputs=(x,),
        outputs=(output,),
        overlap=(None,),
        macs=rows * depth * outputs,
        note=product.note,
    )  # fmt: skip
