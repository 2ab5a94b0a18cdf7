"""Pooling to `kernels/pool.h`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from tvm import relax

from ..program import Buffer, Constant, KernelCall
from ..target import McuTarget
from .window import Window, attributes


def lower_average_pool2d(
    layer: str,
    call: relax.Call,
    inputs: Sequence[Buffer],
    output: Buffer,
    constants: Mapping[int, np.ndarray],
    target: McuTarget,
) -> KernelCall | None:
    """``fewbits.average_pool2d``.

    Not covered (None): dilated windows, integers for requantization that are computed.
    """
    attrs = attributes(call)
    window = _window(call, inputs[0], output)
    if window.dilation != (1, 1) or not {1, 2} <= constants.keys():
        return None
    names = ("count_include_pad", "input_zero", "shift", "minimum", "maximum")
    return KernelCall(
        layer=layer,
        operator="average_pool2d",
        function="fb_average_pool_s8",
        header="pool.h",
        arguments=(
            inputs[0],
            output,
            Constant("bias", constants[1].astype(np.int32)),
            Constant("multiplier", constants[2].astype(np.int32)),
            *_geometry(window),
            *window.strides,
            *window.padding[:2],
            window.out_h,
            window.out_w,
            *(int(attrs[name]) for name in names),
        ),
        inputs=tuple(inputs),
        outputs=(output,),
        overlap=(window.overlap(1),),
    )


def lower_max_pool2d(
    layer: str,
    call: relax.Call,
    inputs: Sequence[Buffer],
    output: Buffer,
    constants: Mapping[int, np.ndarray],
    target: McuTarget,
) -> KernelCall | None:
    """``fewbits.max_pool2d``, every case."""
    window = _window(call, inputs[0], output)
    return KernelCall(
        layer=layer,
        operator="max_pool2d",
        function="fb_max_pool_s8",
        header="pool.h",
        arguments=(
            inputs[0],
            output,
            *_geometry(window),
            *window.strides,
            *window.dilation,
            *window.padding[:2],
            window.out_h,
            window.out_w,
        ),
        inputs=tuple(inputs),
        outputs=(output,),
        overlap=(window.overlap(1),),
    )


def _window(call: relax.Call, x: Buffer, output: Buffer) -> Window:
    """The geometry, as that of a convolution: an output pixel is written when all is read."""
    attrs = attributes(call)
    names = ("strides", "padding", "dilation")
    kernel = (int(attrs["kernel"][0]), int(attrs["kernel"][1]))
    geometry = {name: attrs[name] for name in names} | {"groups": 1}
    return Window.of(x.shape, output.shape, kernel, geometry)


def _geometry(window: Window) -> tuple[int, ...]:
    shape = (window.batch, window.in_h, window.in_w, window.channels)
    return (*shape, window.kernel_h, window.kernel_w)
