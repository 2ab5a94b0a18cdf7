"""Layers of very few bits become products of bit planes (APNN-TC, spec 18).

Weights of 1 or 2 bits and activations of few: each pair of planes is one binary product. Where the
only reader of a layer's result rounds it for the next such layer, with a scale that is known, the
layer's kernel rounds and packs it, so planes are all that lies in memory between the two.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from tvm import relax, tirx
from tvm.ir import prim

from ....formats.base import NumberFormat
from ....formats.binary import BinaryCoding
from ....formats.compressed import CompressedTensor
from ....formats.granularity import PerChannel, PerTensor
from ....formats.integer import Integer
from ....formats.sparsity import Dense
from ....ops.symbolic import Extent, extents_of
from ....passes.layers import Layer
from ....passes.rewrite import constant, operator_of, variables
from ....schedules.cuda.binary import (
    BinaryProduct,
    Encoding,
    PackRows,
    Window,
    binary_kernels,
    pack_rows,
    words,
)
from ....schedules.cuda.epilogue import Epilogue, scaled
from ...vm.calls import tensor_type
from .followers import Followers, Graph
from .quantized import Activation, activation_of
from .selection import Operands, Selection, rows_of

#: TVM's expressions and types are built by calls that its annotations do not cover.
_relax: Any = relax

#: With more pairs of planes, products of bytes are taken where the formats allow it: nominally an
#: A100 does eight times as many binary operations as operations on bytes. Not measured, and no rate
#: of later generations is published.
_PAIRS = 8


def binary_linear(selection: Selection, layer: Layer, chain: Followers) -> relax.Var | None:
    """A matrix product; None where a side is no integer of few bits."""
    return _layer(selection, layer, chain, None)


def binary_convolution(selection: Selection, layer: Layer, chain: Followers) -> relax.Var | None:
    """A convolution with channels last of an image of known size; None for what has no kernel."""
    attrs: Any = layer.call.attrs
    if layer.operator != "relax.nn.conv2d" or layer.groups != 1:
        return None
    if (attrs.data_layout, attrs.kernel_layout, attrs.out_layout) != ("NHWC", "OIHW", "NHWC"):
        return None
    _, height, width, _ = extents_of(layer.input)
    if not isinstance(height, int) or not isinstance(width, int):
        return None
    top, left, bottom, right = (int(n) for n in attrs.padding)
    down, across = (int(n) for n in attrs.strides)
    rows, columns = (int(n) for n in attrs.dilation)
    kernel = layer.shape[2], layer.shape[3]
    window = Window(
        (height, width), kernel, (down, across), (top, left, bottom, right), (rows, columns)
    )
    return _layer(selection, layer, chain, window)


def encoding_of(levels: NumberFormat) -> Encoding | None:
    """How a format's integers become planes; None for formats of other numbers."""
    if isinstance(levels, Integer):
        return Encoding(levels.bits, "signed" if levels.signed else "unsigned")
    if isinstance(levels, BinaryCoding) and levels.bits == 1:
        return Encoding(1, "odd")
    return None


@dataclasses.dataclass(frozen=True, eq=False)
class _Weight:
    """Integers [O, what is summed over] with a float32 scale per output."""

    encoding: Encoding
    integers: np.ndarray
    scales: np.ndarray


def _weight(layer: Layer) -> _Weight | None:
    tensor = layer.tensor
    if not isinstance(tensor, CompressedTensor) or not isinstance(tensor.sparsity, Dense):
        return None
    encoding = encoding_of(tensor.number_format)
    if encoding is None or tensor.zero_points is not None or tensor.offsets is not None:
        return None
    if tensor.granularity not in (PerTensor(), PerChannel(0)):
        return None
    integers = tensor.number_format.decode(tensor.codes()).astype(np.int64).reshape(layer.shape)
    if len(layer.shape) == 4:
        integers = integers.transpose(0, 2, 3, 1)
    scales = np.broadcast_to(tensor.scales.values().reshape(-1), (layer.shape[0],))
    return _Weight(encoding, integers, scales.astype(np.float32))


def _layer(
    selection: Selection, layer: Layer, chain: Followers, window: Window | None
) -> relax.Var | None:
    activation = activation_of(selection.rewriter.values.get(layer.input))
    weight = _weight(layer)
    if activation is None or weight is None or activation.scales == "tensor":
        return None
    if window is not None and activation.scales == "token":
        return None
    x = encoding_of(activation.format)
    if x is None or x.kind == "odd" or x.bits * weight.encoding.bits > _PAIRS:
        return None
    outputs, inputs = layer.shape[:2]
    scales = weight.scales
    if activation.scale is not None:
        scales = scales * activation.scale.astype(np.float32)
    by_row = activation.scales == "token"
    meaning = scaled("float32", row=by_row)
    planes, row_scales = _planes(selection, activation, x, layer.name)
    extra = (row_scales, constant(scales)) if row_scales is not None else (constant(scales),)
    epilogue, given = selection.epilogue(Operands(planes, extra, meaning), chain)
    rounding = _next_rounding(selection, chain)
    if rounding is not None:
        epilogue, output = _rounded(epilogue, rounding), encoding_of(rounding.format)
    else:
        output = None
    problem = BinaryProduct(inputs, outputs, x, weight.encoding, epilogue, output, window)
    if problem.refusal() is not None:
        return None
    y = _call(selection, problem, weight.integers, planes, given, chain, layer)
    if rounding is None or output is None:
        return selection.restored(y, chain, epilogue.dtype)
    assert rounding.scale is not None
    # Whoever wants numbers gets them; where all readers take planes, nobody does.
    numbers = _unpacked(selection, y, output, rounding, chain)
    selection.quantized[_key(numbers, rounding)] = (y, None)
    return numbers


def _call(
    selection: Selection,
    problem: BinaryProduct,
    integers: np.ndarray,
    planes: relax.Expr,
    given: list[relax.Expr],
    chain: Followers,
    layer: Layer,
) -> relax.Var:
    """The kernels' call: [M, N], or planes [M, r, words]."""
    name = str(chain.last.name)
    sizes = extents_of(chain.product)
    rows = rows_of(sizes)
    known = int(rows) if isinstance(rows, int) else None
    key = f"{problem.key} M={known}"
    if key not in selection.binaries:
        title = selection.unique(f"binary_{selection.architecture.name}")
        selection.binaries[key] = binary_kernels(problem, selection.architecture, title, known)
    found = selection.binaries[key]
    selection.notes[layer.name] = f"binary {problem.x.key} by {problem.w.key}, {found.title}"
    for follower in (*chain.inner[1:], chain.last):
        if problem.window is not None and follower is not chain.product:
            selection.notes[str(follower.name)] = f"in {layer.name}"
    if problem.window is not None:
        shape = (sizes[0], *problem.window.size, problem.x.bits, words(problem.inputs))
        planes = selection.rewriter.emit(_relax.op.reshape(planes, shape), name)
    if problem.output is None:
        result = tensor_type((rows, problem.outputs), problem.epilogue.dtype)
    else:
        packed = (rows, problem.output.bits, words(problem.outputs))
        result = tensor_type(packed, "uint32")
    arrays = [constant(array) for array in problem.pack_weight(integers)]
    return selection.call(key, found.host, [planes, *arrays, *given], [result], name)


def _key(x: relax.Expr, activation: Activation) -> tuple[Any, ...]:
    scale = None if activation.scale is None else float(activation.scale)
    return ("planes", x, activation.format.name, scale)


def _planes(
    selection: Selection, activation: Activation, encoding: Encoding, name: str
) -> tuple[relax.Expr, relax.Expr | None]:
    """Planes [M, q, words] of a rounded value, and the scales of its rows; each is packed once."""
    x = selection.rewriter.map(activation.x)
    key = _key(x, activation)
    if key not in selection.quantized:
        selection.quantized[key] = _packed(selection, activation, encoding, x, name)
    return selection.quantized[key]


def _packed(
    selection: Selection, activation: Activation, encoding: Encoding, x: relax.Expr, name: str
) -> tuple[relax.Expr, relax.Expr | None]:
    levels = activation.format
    matrix = selection.matrix(x, selection.dtype, name)
    rows, columns = extents_of(matrix)
    low, high = (int(levels.levels()[place]) for place in (0, -1))
    kernel = PackRows(
        int(columns), selection.dtype, encoding, low, high, float(levels.reach),
        "token" if activation.scale is None else "static",
    )  # fmt: skip
    _, host = selection.special(
        kernel.key, lambda title: pack_rows(kernel, selection.architecture, title), "pack"
    )
    planes = tensor_type((rows, encoding.bits, words(int(columns))), "uint32")
    if activation.scale is not None:
        scale = constant(activation.scale.reshape(1).astype(np.float32))
        return selection.call(kernel.key, host, [matrix, scale], [planes], name), None
    types = [planes, tensor_type((rows,), "float32")]
    both = selection.call(kernel.key, host, [matrix], types, name)
    first, second = (
        selection.rewriter.emit(relax.TupleGetItem(both, place), name) for place in range(2)
    )
    return first, second


def _next_rounding(selection: Selection, chain: Followers) -> Activation | None:
    """The static rounding to few bits that is all that reads a chain's result."""
    rewriter = selection.rewriter
    graph = Graph(rewriter.bindings, variables(rewriter.function.body.body))
    step = graph.only(chain.last)
    if step is None or operator_of(step[1]) != "fewbits.fake_quantize":
        return None
    activation = activation_of(step[1])
    if activation is None or activation.scale is None:
        return None
    encoding = encoding_of(activation.format)
    return activation if encoding is not None and encoding.kind != "odd" else None


def _rounded(epilogue: Epilogue, rounding: Activation) -> Epilogue:
    """The epilogue with its float32 result rounded to an integer of the next layer's format."""
    value: Any = epilogue.value
    if epilogue.dtype != "float32":  # what would be stored; here nothing is
        value = value.value
    assert rounding.scale is not None
    low, high = (float(rounding.format.levels()[place]) for place in (0, -1))
    value = tirx.nearbyint(value / prim.FloatImm("float32", float(rounding.scale)))
    value = tirx.max(tirx.min(value, prim.FloatImm("float32", high)), prim.FloatImm("float32", low))
    return Epilogue(epilogue.sum, tirx.Cast("int32", value), epilogue.operands)


def _unpacked(
    selection: Selection, y: relax.Expr, encoding: Encoding, rounding: Activation, chain: Followers
) -> relax.Var:
    """Planes as float32 numbers in the shape of the chain's result."""
    name = str(chain.last.name)
    sizes: tuple[Extent, ...] = extents_of(chain.last)
    columns, op = int(sizes[-1]), _relax.op
    assert rounding.scale is not None
    emit = selection.rewriter.emit
    shifts = constant(np.arange(32, dtype=np.uint32))
    weights = constant(np.array(encoding.weights, np.float32).reshape(-1, 1))
    bits = emit(op.right_shift(emit(op.expand_dims(y, -1), name), shifts), name)
    bits = emit(op.bitwise_and(bits, constant(np.uint32(1))), name)
    bits = emit(op.astype(bits, "float32"), name)
    filled = (rows_of(sizes), encoding.bits, 32 * words(columns))
    bits = emit(op.reshape(bits, filled), name)
    bits = emit(op.strided_slice(bits, [2], [0], [columns]), name)
    total = emit(op.sum(emit(op.multiply(bits, weights), name), 1), name)
    value = emit(op.multiply(total, constant(rounding.scale.astype(np.float32))), name)
    value = emit(op.reshape(value, sizes), name)
    assert isinstance(value, relax.Var)
    return value
