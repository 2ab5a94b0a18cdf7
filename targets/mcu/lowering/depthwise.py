"""Depthwise convolutions to `kernels/depthwise.h`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from tvm import relax

from ..program import Buffer, Constant, KernelCall, Scratch
from ..target import McuTarget
from .window import Window, attributes


def lower_depthwise(
    layer: str,
    call: relax.Call,
    inputs: Sequence[Buffer],
    output: Buffer,
    constants: Mapping[int, np.ndarray],
    target: McuTarget,
) -> KernelCall | None:
    """``fewbits.conv2d`` with one input channel a group and constant weights.

    Not covered (None): fewer groups than channels, weights that are computed or not int8.
    """
    if not {1, 2, 3} <= constants.keys() or constants[1].dtype != np.int8:
        return None
    x, weight = inputs[0], constants[1]
    kernel = (weight.shape[1], weight.shape[2])
    window = Window.of(x.shape, output.shape, kernel, attributes(call))
    if window.groups != window.channels:
        return None
    attrs = attributes(call)
    return KernelCall(
        layer=layer,
        operator="depthwise",
        function="fb_depthwise_s8",
        header="depthwise.h",
        arguments=(
            x,
            output,
            Constant("weights", np.ascontiguousarray(weight.reshape(window.outputs, -1))),
            Constant("bias", constants[2].astype(np.int32)),
            Constant("multiplier", constants[3].astype(np.int32)),
            Scratch(),
            window.batch,
            window.in_h,
            window.in_w,
            window.channels,
            window.outputs // window.channels,
            *kernel,
            *window.strides,
            *window.dilation,
            *window.padding[:2],
            window.out_h,
            window.out_w,
            *(int(attrs[name]) for name in ("input_zero", "shift", "minimum", "maximum")),
        ),
        inputs=(x,),
        outputs=(output,),
        scratch=_scratch(window, int(attrs["shift"]), target),
        overlap=(0 if _in_place(window) else None,),
        overlap_exact=True,
        macs=window.macs,
    )


def _in_place(window: Window) -> bool:
    """Whether the output may lie exactly on the input.

    Each channel's outputs must fall on bytes of that channel alone, and an image's outputs must
    not reach the next image.
    """
    grows = window.pixels > window.in_h * window.in_w
    return window.outputs == window.channels and not (window.batch > 1 and grows)


def _scratch(window: Window, shift: int, target: McuTarget) -> int:
    """Bytes of the plane of one channel and of a widened filter, as in `depthwise.h`."""
    stride_h, stride_w = window.strides
    dilation_h, dilation_w = window.dilation
    kernel_h, kernel_w = window.kernel_h, window.kernel_w
    rows = (window.out_h - 1) * stride_h + (kernel_h - 1) * dilation_h + 1
    columns = (window.out_w - 1) * stride_w + (kernel_w - 1) * dilation_w + 1
    plain = (kernel_h, kernel_w) == (3, 3) and window.dilation == (1, 1)
    steps = window.strides in ((1, 1), (2, 2)) and window.out_h > 1
    if target.dsp and plain and steps and shift <= 8:
        return (columns + 1) // 2 * rows * 4
    if window.out_h > window.out_w:
        rows, columns, kernel_h, kernel_w = columns, rows, kernel_w, kernel_h
    if target.dsp:
        return 2 * (kernel_h * (kernel_w + kernel_w % 2) + rows * (columns + 1))
    return 4 * kernel_h * kernel_w + rows * columns
