"""Operators that only move data, of any element type, to `kernels/move.h`.

A permutation or slice is read off NumPy: the same operation on an array of the input's shape gives
a view, whose strides and offset are what the kernel walks with.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from tvm import relax

from ....ops.meanings.resize import interpolation
from ..program import DTYPE_BYTES, Argument, Buffer, Constant, KernelCall
from ..target import McuTarget

_GATHER_RANK = 5
_PAD_RANK = 4
_PIECES = 8
_INDICES = 2**16


def lower_permute_dims(
    layer: str,
    call: relax.Call,
    inputs: Sequence[Buffer],
    output: Buffer,
    constants: Mapping[int, np.ndarray],
    target: McuTarget,
) -> KernelCall | None:
    """``relax.permute_dims``.

    Not covered (None): constants, more than five axes once axes that stay together are merged.
    """
    attrs: Any = call.attrs
    axes = attrs.axes
    order = None if axes is None else [int(axis) for axis in axes]
    return _gather(layer, "permute_dims", inputs, output, lambda x: x.transpose(order))


def lower_strided_slice(
    layer: str,
    call: relax.Call,
    inputs: Sequence[Buffer],
    output: Buffer,
    constants: Mapping[int, np.ndarray],
    target: McuTarget,
) -> KernelCall | None:
    """``relax.strided_slice``, also with negative strides.

    Not covered (None): constants, bounds that are computed, more than five axes once axes that
    stay together are merged.
    """
    bounds = [_integers(argument) for argument in call.args[1:]]
    known = [values for values in bounds if values is not None]
    if len(known) < len(bounds):
        return None
    if len(known) == 3:
        known.append([1] * len(known[0]))

    def slices(x: np.ndarray) -> np.ndarray:
        index = [slice(None)] * x.ndim
        for axis, first, last, step in zip(*known, strict=True):
            # The end of a backward slice may lie before the first element: then it has them all.
            stop = None if step < 0 and last < -x.shape[axis] else last
            index[axis] = slice(first, stop, step)
        return x[tuple(index)]

    return _gather(layer, "strided_slice", inputs, output, slices)


def lower_concat(
    layer: str,
    call: relax.Call,
    inputs: Sequence[Buffer],
    output: Buffer,
    constants: Mapping[int, np.ndarray],
    target: McuTarget,
) -> KernelCall | None:
    """``relax.concat``. Not covered (None): constants, one input, more than eight inputs."""
    if constants or not 2 <= len(inputs) <= _PIECES:
        return None
    attrs: Any = call.attrs
    axis = 0 if attrs.axis is None else int(attrs.axis) % len(output.shape)
    outer = math.prod(output.shape[:axis])
    pieces: list[Argument] = []
    for buffer in inputs:
        pieces += [buffer, _element(output) * math.prod(buffer.shape[axis:])]
    missing = [0, 0] * (_PIECES - len(inputs))
    return KernelCall(
        layer=layer,
        operator="concat",
        function="fb_concat",
        header="move.h",
        arguments=(output, outer, *pieces, *missing),
        inputs=tuple(inputs),
        outputs=(output,),
        overlap=(None,) * len(inputs),
    )


def lower_split(
    layer: str,
    call: relax.Call,
    inputs: Sequence[Buffer],
    outputs: Sequence[Buffer] | Buffer,
    constants: Mapping[int, np.ndarray],
    target: McuTarget,
) -> KernelCall | None:
    """``relax.split``, into one buffer or several.

    Not covered (None): constants, more than eight outputs.
    """
    outputs = [outputs] if isinstance(outputs, Buffer) else outputs
    if constants or len(outputs) > _PIECES:
        return None
    x = inputs[0]
    attrs: Any = call.attrs
    axis = int(attrs.axis) % len(x.shape)
    pieces: list[Argument] = []
    for buffer in outputs:
        pieces += [buffer, _element(x) * math.prod(buffer.shape[axis:])]
    missing = [0, 0] * (_PIECES - len(outputs))
    return KernelCall(
        layer=layer,
        operator="split",
        function="fb_split",
        header="move.h",
        arguments=(x, math.prod(x.shape[:axis]), *pieces, *missing),
        inputs=(x,),
        outputs=tuple(outputs),
        overlap=(None,),
    )


def lower_pad(
    layer: str,
    call: relax.Call,
    inputs: Sequence[Buffer],
    output: Buffer,
    constants: Mapping[int, np.ndarray],
    target: McuTarget,
) -> KernelCall | None:
    """``relax.nn.pad`` with a constant.

    Not covered (None): other modes, cropping, values other than 0 for elements of several bytes,
    more than four axes once axes without padding are merged.
    """
    attrs: Any = call.attrs
    widths = [int(width) for width in attrs.pad_width]
    value, element = float(attrs.pad_value), _element(output)
    if str(attrs.pad_mode) != "constant" or not inputs or min(widths, default=0) < 0:
        return None
    if (element > 1 and value != 0) or not -128 <= value <= 255 or value != int(value):
        return None
    axes = [
        _PaddedAxis(size, before, after)
        for size, before, after in zip(inputs[0].shape, widths[::2], widths[1::2], strict=True)
    ]
    axes = _merge_padded([*axes, _PaddedAxis(element, 0, 0)])
    if len(axes) > _PAD_RANK:
        return None
    axes = [_PaddedAxis(1, 0, 0)] * (_PAD_RANK - len(axes)) + axes
    return KernelCall(
        layer=layer,
        operator="pad",
        function="fb_pad",
        header="move.h",
        arguments=(
            inputs[0],
            output,
            int(value),
            *(axis.size for axis in axes),
            *(axis.before for axis in axes),
            *(axis.after for axis in axes),
        ),
        inputs=tuple(inputs),
        outputs=(output,),
        overlap=(_pad_overlap(axes),),
    )


def lower_take(
    layer: str,
    call: relax.Call,
    inputs: Sequence[Buffer],
    output: Buffer,
    constants: Mapping[int, np.ndarray],
    target: McuTarget,
) -> KernelCall | None:
    """``relax.take`` with constant indices.

    Not covered (None): computed indices, a constant input, indices that are out of range in the
    mode ``fast``, axes longer than 65,536.
    """
    if set(constants) != {1}:
        return None
    x = inputs[0]
    attrs: Any = call.attrs
    shape = x.shape if attrs.axis is not None else (math.prod(x.shape),)
    axis = 0 if attrs.axis is None else int(attrs.axis) % len(shape)
    length, index = shape[axis], constants[1].astype(np.int64).ravel()
    mode = str(attrs.mode)
    if mode == "clip":
        index = index.clip(0, length - 1)
    elif mode == "wrap":
        index = index % length
    else:
        index = np.where(index < 0, index + length, index)
    if length > _INDICES or index.min(initial=0) < 0 or index.max(initial=0) >= length:
        return None
    inner = _element(x) * math.prod(shape[axis + 1 :])
    outer = math.prod(shape[:axis])
    return KernelCall(
        layer=layer,
        operator="take",
        function="fb_take",
        header="move.h",
        arguments=(
            x,
            output,
            Constant("index", index.astype(np.uint16)),
            outer,
            length,
            len(index),
            inner,
        ),
        inputs=tuple(inputs),
        outputs=(output,),
        overlap=(0 if bool((np.diff(index) > 0).all()) else None,),
    )


def lower_resize2d(
    layer: str,
    call: relax.Call,
    inputs: Sequence[Buffer],
    output: Buffer,
    constants: Mapping[int, np.ndarray],
    target: McuTarget,
) -> KernelCall | None:
    """``relax.image.resize2d``, nearest neighbour, NHWC or NCHW.

    Not covered (None): other methods and layouts, cropping, a change of the element type, images
    of more than 65,536 rows or columns.
    """
    attrs: Any = call.attrs
    layout, mode = str(attrs.layout), str(attrs.coordinate_transformation_mode)
    if str(attrs.method) != "nearest_neighbor" or layout not in ("NHWC", "NCHW") or not inputs:
        return None
    x = inputs[0]
    first = layout.index("H")
    sizes, targets = x.shape[first : first + 2], output.shape[first : first + 2]
    if mode == "tf_crop_and_resize" or output.dtype != x.dtype or max(sizes) > _INDICES:
        return None
    rounding = str(attrs.rounding_method)
    sources = [
        interpolation(size, count, "nearest_neighbor", mode, rounding, 0.0, False, 0.0, 0.0)[0]
        for size, count in zip(sizes, targets, strict=True)
    ]
    tables = [Constant("index", matrix.argmax(axis=1).astype(np.uint16)) for matrix in sources]
    inner = _element(x) * math.prod(x.shape[first + 2 :])
    return KernelCall(
        layer=layer,
        operator="resize2d",
        function="fb_take_pixels",
        header="move.h",
        arguments=(
            x,
            output,
            *tables,
            math.prod(x.shape[:first]),
            *sizes,
            *targets,
            inner,
        ),
        inputs=tuple(inputs),
        outputs=(output,),
        overlap=(None,),
    )


def copy_call(layer: str, source: Buffer, output: Buffer) -> KernelCall:
    """A call that copies a buffer to another of the same size."""
    return KernelCall(
        layer=layer,
        operator="copy",
        function="fb_copy",
        header="move.h",
        arguments=(output, source, source.bytes),
        inputs=(source,),
        outputs=(output,),
        overlap=(0,),
    )


def constant_call(layer: str, array: np.ndarray, output: Buffer) -> KernelCall:
    """A call that copies a constant of the same dtype to a buffer."""
    return KernelCall(
        layer=layer,
        operator="constant",
        function="fb_copy",
        header="move.h",
        arguments=(output, Constant("value", np.ascontiguousarray(array)), output.bytes),
        inputs=(),
        outputs=(output,),
    )


def _element(buffer: Buffer) -> int:
    return DTYPE_BYTES[buffer.dtype]


def _integers(argument: Any) -> list[int] | None:
    """A shape or a tuple of literals as ints; None where something is computed."""
    fields = argument.values if isinstance(argument, relax.ShapeExpr) else argument.fields
    values = [getattr(field, "value", None) for field in fields]
    found = [int(value) for value in values if value is not None]
    return found if len(found) == len(values) else None


def _gather(
    layer: str,
    operator: str,
    inputs: Sequence[Buffer],
    output: Buffer,
    view: Callable[[np.ndarray], np.ndarray],
) -> KernelCall | None:
    """A call that copies what `view` picks of an array with the input's shape."""
    if not inputs:
        return None
    x, element = inputs[0], _element(output)
    whole = np.empty(x.shape, np.int8)
    part = view(whole)
    start = part.__array_interface__["data"][0] - whole.__array_interface__["data"][0]
    axes: list[tuple[int, int]] = []
    for size, step in zip(part.shape, part.strides, strict=True):
        if size == 1:
            continue
        if axes and axes[-1][1] == size * step:
            axes[-1] = (axes[-1][0] * size, step)
        else:
            axes.append((size, step))
    axes = axes or [(1, 1)]
    if len(axes) > _GATHER_RANK or 0 in part.shape:
        return None
    axes = [(1, 0)] * (_GATHER_RANK - len(axes)) + axes
    return KernelCall(
        layer=layer,
        operator=operator,
        function="fb_gather",
        header="move.h",
        arguments=(
            x,
            output,
            element,
            start * element,
            *(size for size, _ in axes),
            *(step * element for _, step in axes),
        ),
        inputs=tuple(inputs),
        outputs=(output,),
        overlap=(0 if _ascends(axes) else None,),
    )


def _ascends(axes: Sequence[tuple[int, int]]) -> bool:
    """Whether elements are read in the order in which they lie in memory."""
    reach = 0
    for size, step in reversed(axes):
        if size > 1 and step <= reach:
            return False
        reach += (size - 1) * step
    return True


@dataclasses.dataclass(frozen=True)
class _PaddedAxis:
    size: int
    before: int
    after: int

    @property
    def total(self) -> int:
        return self.before + self.size + self.after


def _merge_padded(axes: Sequence[_PaddedAxis]) -> list[_PaddedAxis]:
    """An axis without padding becomes part of the axis outside it."""
    merged = [axes[0]]
    for axis in axes[1:]:
        outer = merged[-1]
        if axis.before == axis.after == 0:
            merged[-1] = _PaddedAxis(*(axis.size * v for v in dataclasses.astuple(outer)))
        else:
            merged.append(axis)
    return merged


def _pad_overlap(axes: Sequence[_PaddedAxis]) -> int:
    """How far before the input the output must start: where the last row is written, less where
    it is read."""
    written = read = 0
    for axis in axes[:-1]:
        written = written * axis.total + axis.before + axis.size - 1
        read = read * axis.size + axis.size - 1
    last = axes[-1]
    return max(0, written * last.total + last.before - read * last.size)
