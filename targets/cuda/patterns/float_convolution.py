"""Convolutions of half floats with channels last (`layout`), and of activations rounded to int8."""

from __future__ import annotations

from typing import Any

import numpy as np
from tvm import relax

from ....formats.compressed import CompressedTensor
from ....formats.granularity import PerChannel, PerTensor
from ....formats.sparsity import Dense as DensePattern
from ....ops.symbolic import extents_of
from ....passes.layers import Layer
from ....passes.rewrite import constant
from ....schedules.cuda.epilogue import plain, scaled
from .convolution import Finish, Window, emit_convolution
from .dense import NUMPY_TYPES
from .followers import Followers
from .quantized import LONGEST, activation_of, codes_of, is_int8
from .selection import Operands, Selection

#: TVM's expressions and types are built by calls that its annotations do not cover.
_relax: Any = relax


def quantized_convolution(selection: Selection, layer: Layer, chain: Followers) -> relax.Var | None:
    """int8 times int8 with scales; None for other pairs, and for scales within an image."""
    window = _window(selection, layer)
    activation = activation_of(selection.rewriter.values.get(layer.input))
    tensor = layer.tensor
    if window is None or activation is None or not isinstance(tensor, CompressedTensor):
        return None
    codes = _codes(layer, tensor)
    if codes is None or activation.scales == "token" or not is_int8(activation.format):
        return None
    outputs = codes.shape[0]
    column = np.broadcast_to(tensor.scales.values().reshape(-1), (outputs,)).astype(np.float32)
    if activation.scale is not None:
        column = column * activation.scale
    x, scales = codes_of(selection, activation, np.int8, layer.name)
    sizes = extents_of(layer.input)
    x = selection.rewriter.emit(_relax.op.reshape(x, sizes), layer.name)
    extra = () if scales is None else (scales,)
    meaning = scaled("float32", row=False, one=scales is not None)
    operands = Operands(x, (*extra, constant(column)), meaning)
    return _emit(selection, operands, codes, window, chain)


def float_convolution(selection: Selection, layer: Layer, chain: Followers) -> relax.Var | None:
    """Half floats; stored weights are decoded into memory first, at every call."""
    window = _window(selection, layer)
    if window is None:
        return None
    x = selection.converted(selection.rewriter.map(layer.input), selection.dtype, layer.name)
    operands = Operands(x, (), plain("float32", "float32"))
    if layer.tensor is None:
        weight = layer.weight.transpose(0, 2, 3, 1)
        return _emit(
            selection, operands, weight.astype(NUMPY_TYPES[selection.dtype]), window, chain
        )
    stored = selection.rewriter.map(layer.call.args[1])
    moved = selection.rewriter.emit(_relax.op.permute_dims(stored, [0, 2, 3, 1]), layer.name)
    return _emit(selection, operands, moved, window, chain)


def _window(selection: Selection, layer: Layer) -> Window | None:
    """The geometry of a two-dimensional convolution with channels last, in half floats."""
    attrs: Any = layer.call.attrs
    if selection.dtype == "float32" or layer.operator != "relax.nn.conv2d":
        return None
    if (attrs.data_layout, attrs.kernel_layout, attrs.out_layout) != ("NHWC", "OIHW", "NHWC"):
        return None
    top, left, bottom, right = (int(n) for n in attrs.padding)
    down, across = (int(n) for n in attrs.strides)
    apart = [int(n) for n in attrs.dilation]
    return Window(
        (down, across), (top, left, bottom, right), (apart[0], apart[1]), int(attrs.groups)
    )


def _codes(layer: Layer, tensor: CompressedTensor) -> np.ndarray | None:
    """int8 [O, kh, kw, I / groups] of a weight with a scale per output, or one for all."""
    if not isinstance(tensor.sparsity, DensePattern) or tensor.zero_points is not None:
        return None
    if tensor.granularity not in (PerTensor(), PerChannel(0)) or not is_int8(tensor.number_format):
        return None
    codes = tensor.number_format.decode(tensor.codes()).astype(np.int8).reshape(layer.shape)
    return None if codes[0].size > LONGEST else codes.transpose(0, 2, 3, 1)


def _emit(
    selection: Selection,
    operands: Operands,
    weight: np.ndarray | relax.Expr,
    window: Window,
    chain: Followers,
) -> relax.Var | None:
    epilogue, extra = selection.epilogue(operands, chain)
    names = str(chain.product.name), str(chain.last.name)
    finish = Finish(epilogue, extra, names)
    y = emit_convolution(selection, operands.x, weight, window, finish)
    if y is None:
        return None
    for follower in (*chain.inner[1:], chain.last):
        if follower is not chain.product:  # a bias is a layer of its own in reports
            selection.notes[str(follower.name)] = f"in {names[0]}"
    return selection.restored(y, chain, epilogue.dtype)
