"""The compressed form in ONNX: what the standard operators can say of few-bit weights and values.

Integers of ONNX's own types and FP8 become DequantizeLinear, blocked from opset 21 on. Other dense
codebooks become a table look-up (``Gather``) of codes in the smallest type that holds them, so that
every run time computes the same values. Sparse weights are written dense, with their zeros: ONNX
has no few-bit sparse type. What has no form at all (binary coding) belongs in a safetensors file.
"""

from __future__ import annotations

import math

import numpy as np
from onnx import TensorProto

from ...errors import FewbitsError
from ...formats.base import NumberFormat
from ...formats.binary import BinaryCoding
from ...formats.compressed import CompressedTensor
from ...formats.granularity import PerBlock, PerChannel, PerGroup, PerTensor
from ...formats.integer import Integer
from ...formats.onnx_layout import LinearLayout, element_type, to_linear
from ...formats.packing import pack
from ...formats.parse import parse_format
from ...formats.plain import PlainTensor
from ...formats.sparsity import Dense
from ...ops.compressed.weights import tensor_of
from .graph import Node, Unsupported
from .rules import rule

#: The default operator set that brought each element type to DequantizeLinear.
_SINCE: dict[int, int] = {
    TensorProto.INT8: 13, TensorProto.UINT8: 13, TensorProto.FLOAT8E4M3FN: 19,
    TensorProto.FLOAT8E4M3FNUZ: 19, TensorProto.FLOAT8E5M2: 19, TensorProto.FLOAT8E5M2FNUZ: 19,
    TensorProto.INT4: 21, TensorProto.UINT4: 21,
}  # fmt: skip
_TINY = 2.0**-126


# -- weights --------------------------------------------------------------------------------------


@rule("fewbits.decode")
def _decode(node: Node) -> None:
    stored = tensor_of(node.call)
    if isinstance(stored, PlainTensor):  # runtimes have no sparse constants: zeros are written
        node.done("Identity", node.constant(stored.decode(), "values", "float32"))
        return
    tensor = _dense(stored)
    layout = _linear(node, tensor)
    if layout is None:
        _look_up(node, tensor)
        return
    codes = node.raw(layout.element_type, layout.shape, layout.raw, "codes")
    inputs = [codes, _scales(node, tensor, layout.scales)]
    if layout.zero_points is not None:
        shape = layout.scales.shape
        inputs.append(node.raw(layout.element_type, shape, layout.zero_points, "zero_points"))
    axis = layout.axis if layout.scales.ndim else None
    node.done("DequantizeLinear", *inputs, axis=axis, block_size=layout.block_size or None)


def _dense(tensor: CompressedTensor) -> CompressedTensor:
    """The same values without sparsity: zeros are codes like any other."""
    if isinstance(tensor.number_format, BinaryCoding):
        raise Unsupported("binary coding has no ONNX form, a .safetensors file holds it")
    if isinstance(tensor.sparsity, Dense):
        return tensor
    if tensor.number_format.round(np.zeros(1))[0] != 0:
        raise Unsupported(f"{tensor.number_format} has no zero for the places that are not stored")
    codes, mask = tensor.codes(), tensor.mask()
    zeros = tensor.number_format.encode(np.zeros(1))[0]
    if tensor.zero_points is None:
        codes = np.where(mask, codes, zeros)
    else:
        rows = tensor.granularity.rows(codes)
        filled = np.broadcast_to(tensor.zero_points.reshape(-1, 1), rows.shape)
        zeros_like = tensor.granularity.from_rows(np.ascontiguousarray(filled), tensor.shape)
        codes = np.where(mask, codes, zeros_like)
    return CompressedTensor.from_codes(
        codes.astype(np.uint8), tensor.number_format, tensor.granularity, tensor.scales,
        zero_points=tensor.zero_points,
    )  # fmt: skip


def _linear(node: Node, tensor: CompressedTensor) -> LinearLayout | None:
    """A DequantizeLinear of the tensor, if this opset has one."""
    try:
        layout = to_linear(tensor)
    except FewbitsError:
        return None  # another format or granularity: the table look-up takes everything
    if layout.block_size and node.graph.opset < 21:
        return None
    since = _SINCE.get(int(layout.element_type))
    return layout if since is not None and node.graph.opset >= since else None


def _scales(node: Node, tensor: CompressedTensor, values: np.ndarray) -> str:
    """Scales as float32; those kept in 16 bits stay so in the file and are cast."""
    if tensor.scales.storage in ("float16", "bfloat16"):
        # As stored, except where 0 stands for the smallest scale.
        stored = tensor.scales.arrays["scales"].reshape(values.shape)
        if np.array_equal(stored.astype(np.float32), values):
            number = TensorProto.FLOAT16
            if tensor.scales.storage == "bfloat16":
                number = TensorProto.BFLOAT16
            name = node.raw(number, values.shape, stored.tobytes(), "scales")
            return node.step("Cast", name, to=TensorProto.FLOAT)
    return node.constant(values, "scales", "float32")


def _look_up(node: Node, tensor: CompressedTensor) -> None:
    """``Gather(table, codes) * scales``, on rows that share a scale."""
    number_format, shape = tensor.number_format, tensor.shape
    rows_shape, scale_shape = _rows(tensor)
    codes = tensor.codes().reshape(-1)
    four = number_format.bits <= 4 and node.graph.opset >= 21
    number = TensorProto.UINT4 if four else TensorProto.UINT8
    raw = pack(codes, 4).tobytes() if four else codes.tobytes()
    name = node.raw(number, rows_shape, raw, "codes")
    index = node.step("Cast", name, to=TensorProto.INT32)
    table = node.constant(_table(number_format), "table", "float32")
    values = node.step("Gather", table, index, axis=0)
    scales = _scales(node, tensor, tensor.scales.values().reshape(scale_shape))
    if tensor.zero_points is not None:
        zero = number_format.decode(tensor.zero_points).reshape(scale_shape)
        values = node.step("Sub", values, node.constant(zero, "zero_points", "float32"))
    if rows_shape == shape:
        node.done("Mul", values, scales)
    else:
        scaled = node.step("Mul", values, scales)
        node.done("Reshape", scaled, node.int64(shape, "shape"))


def _table(number_format: NumberFormat) -> np.ndarray:
    """The real of every code; codes that mean nothing, such as NaN, are never written."""
    table = number_format.decode(np.arange(2**number_format.bits, dtype=np.uint8))
    return np.where(np.isfinite(table), table, np.float32(0))


def _rows(tensor: CompressedTensor) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Shapes to which codes and scales are reshaped so that the scales broadcast."""
    shape, granularity = tensor.shape, tensor.granularity
    if isinstance(granularity, PerTensor):
        return shape, ()
    if isinstance(granularity, PerChannel):
        axis = granularity.axis % len(shape)
        return shape, tuple(size if i == axis else 1 for i, size in enumerate(shape))
    size, count = 0, math.prod(shape)
    if isinstance(granularity, PerGroup) and granularity.axis % len(shape) == len(shape) - 1:
        size, count = granularity.size, shape[-1]
    elif isinstance(granularity, PerBlock):
        size = granularity.size
    if not size or (count % size and count > size):
        raise Unsupported(
            f"{tensor.number_format} with scales per {granularity} over {shape}: groups that do "
            "not divide have no ONNX form"
        )
    size = min(size, count)
    blocks = tensor.size // size
    return (blocks, size), (blocks, 1)


# -- activations ----------------------------------------------------------------------------------


@rule("fewbits.fake_quantize")
def _fake_quantize(node: Node) -> None:
    number_format = parse_format(str(node.attrs["format"]))
    if len(node.call.args) == 2:
        scale = node.array(1)
        if scale is None:
            raise Unsupported("a scale that is not constant")
        name = node.constant(scale.reshape(()), "scale", "float32")
        quotient = node.step("Div", node[0], name)
        node.done("Mul", _rounded(node, number_format, quotient), name)
        return
    magnitude = node.step("Abs", node[0])
    per_token = str(node.attrs["granularity"]) == "token"
    axes = [node.rank() - 1] if per_token else list(range(node.rank()))
    largest = _reduce_max(node, magnitude, axes, keepdims=1)
    reach = node.constant(number_format.reach, "reach", "float32")
    ratio = node.step("Div", largest, reach)
    scale_name = node.step("Max", ratio, node.constant(_TINY, "smallest", "float32"))
    quotient = node.step("Div", node[0], scale_name)
    node.done("Mul", _rounded(node, number_format, quotient), scale_name)


def _rounded(node: Node, number_format: NumberFormat, quotient: str) -> str:
    """The nearest levels, as float32."""
    if isinstance(number_format, Integer):
        low = node.constant(number_format.minimum, "minimum", "float32")
        high = node.constant(number_format.maximum, "maximum", "float32")
        return node.step("Clip", node.step("Round", quotient), low, high)
    try:
        number = element_type(number_format)
    except FewbitsError as error:
        raise Unsupported(f"rounding activations to {number_format}") from error
    if _SINCE.get(number, 99) > node.graph.opset:
        raise Unsupported(f"{number_format} activations need opset {_SINCE.get(number, 23)}")
    # Clipped first, so that run times whose casts do not saturate agree.
    reach = number_format.reach
    low = node.constant(-reach, "minimum", "float32")
    high = node.constant(reach, "maximum", "float32")
    clipped = node.step("Clip", quotient, low, high)
    return node.step("Cast", node.step("Cast", clipped, to=number), to=TensorProto.FLOAT)


@rule("fewbits.outlier_columns")
def _outlier_columns(node: Node) -> None:
    columns = _reduce_max(node, node.step("Abs", node[0]), list(range(node.rank() - 1)), keepdims=0)
    threshold = float(node.attrs["threshold"])
    # A threshold of 0 means that nothing is an outlier.
    limit = node.constant(threshold if threshold > 0 else np.inf, "threshold", "float32")
    mask = node.step("Cast", node.step("GreaterOrEqual", columns, limit), to=TensorProto.FLOAT)
    if node.graph.opset < 13:
        raise Unsupported("outlier columns need opset 13")
    count = node.step("ReduceSum", mask, keepdims=1)
    capacity = node.constant(float(int(node.attrs["capacity"])), "capacity", "float32")
    over = node.step("Cast", node.step("Greater", count, capacity), to=TensorProto.FLOAT)
    node.done("Max", mask, over)


def _reduce_max(node: Node, value: str, axes: list[int], keepdims: int) -> str:
    """ReduceMax, whose axes became an input in opset 18."""
    if node.graph.opset >= 18:
        return node.step("ReduceMax", value, node.int64(axes, "axes"), keepdims=keepdims)
    return node.step("ReduceMax", value, axes=axes, keepdims=keepdims)
