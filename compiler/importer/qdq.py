"""``QuantizeLinear``, ``DequantizeLinear`` and ``DynamicQuantizeLinear``: Relax's own QDQ form.

Codes keep their ONNX type here; `signed.py` turns unsigned codes into signed ones afterwards.
Constants of 2 and 4 bits with one scale per axis are widened to int8 codes with the same meaning,
which integer targets compute with; blocked and FP8 weights keep their bits (`few_bits.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper
from tvm import relax

from . import fold
from .few_bits import decoded
from .limits import RUNTIME_DTYPES
from .node import Node, Result
from .values import static_shape

op: Any = relax.op  # its annotations are narrower than what it takes

#: dtypes of codes at run time.
CODES = ("int8", "uint8", "int16", "uint16")
#: Few-bit dtypes whose values fit int8.
_NARROW = ("int4", "uint4", "int2", "uint2")


def _parameters(
    node: Node, scale: int, zero_point: int, dtype: str, shape: Sequence[int], axis: int
) -> tuple[relax.Expr, relax.Expr, int]:
    """Scale, zero point and axis of codes of `shape`.

    One value for the tensor becomes two scalars with axis 0; several become two vectors.

    Args:
        scale: index of the scale among the node's inputs.
        zero_point: index of the zero point, which may be missing.
        dtype: the codes' type.
        axis: what the scale's elements count, where it has several.
    """
    count = int(np.prod(node.shape(scale)))
    if count == 1:
        axis, wanted = 0, ()
    else:
        axis = node.normalize_axis(axis, len(shape))
        wanted = (shape[axis],)
        if count != shape[axis]:
            raise node.error(
                "invalid-node",
                f"{count} scales for axis {axis} of a tensor of rank {len(shape)}",
            )
    zeros = np.zeros(wanted, _storage(dtype))
    zero = _shaped(node, zero_point, wanted) if node.has(zero_point) else relax.const(zeros)
    return _shaped(node, scale, wanted), zero, axis


def _storage(dtype: str) -> str:
    return "int8" if dtype in _NARROW else dtype


def _shaped(node: Node, index: int, shape: tuple[int, ...]) -> relax.Expr:
    """Input `index`, a scale or zero point, as a scalar or vector."""
    array = node.constant(index)
    if array is None:
        value = node[index]
        return value if static_shape(value) == shape else op.reshape(value, shape)
    array = array.astype(_storage(str(array.dtype)))
    return relax.const(
        np.array(np.broadcast_to(array.reshape(-1) if shape else array.item(), shape), array.dtype)
    )


def dequantized(
    node: Node, data: int, scale: int, zero_point: int, axis: int = 0, result: str | None = None
) -> relax.Expr:
    """``relax.dequantize`` of input `data`; the indices are those of the node's inputs."""
    dtype = node.dtype(data)
    if dtype not in (*CODES, *_NARROW, "int32"):
        raise node.refuse(f"dequantization of {dtype} values computed at run time")
    scales, zeros, axis = _parameters(node, scale, zero_point, dtype, node.shape(data), axis)
    array = node.constant(data)
    codes = (
        node[data] if array is None or dtype not in _NARROW else relax.const(array.astype("int8"))
    )
    return op.dequantize(codes, scales, zeros, axis, result or node.dtype(scale))


def quantized(
    node: Node, value: relax.Expr, scale: int, zero_point: int, dtype: str, axis: int = 0
) -> relax.Expr:
    """``relax.quantize`` of `value`, with scale and zero point from the node's inputs."""
    if dtype not in CODES:
        raise node.refuse(
            f"quantization to {dtype} at run time", "activations can have 8 or 16 bits"
        )
    value = node.emit(value)
    scales, zeros, axis = _parameters(node, scale, zero_point, dtype, static_shape(value), axis)
    return op.quantize(value, scales, zeros, axis, dtype)


def _attribute_dtype(node: Node, name: str, default: str) -> str:
    code = node.int(name, 0)
    return str(helper.tensor_dtype_to_np_dtype(code)) if code else default


def _quantize_linear(node: Node) -> Result:
    blocked = node.int("block_size", 0)
    if blocked:
        raise node.refuse("blocked quantization of values computed at run time")
    if node.int("precision", 0) not in (0, onnx.TensorProto.FLOAT):
        raise node.refuse("a precision other than float32")
    dtype = node.dtype(2) if node.has(2) else _attribute_dtype(node, "output_dtype", "uint8")
    value = node[0]
    if np.dtype(node.dtype()).kind in "iu":
        value = op.astype(value, node.dtype(1))
    return quantized(node, value, 1, 2, dtype, node.int("axis", 1))


def _dequantize_linear(node: Node) -> Result:
    array = node.constant(0)
    known = array is not None and all(node.constant(i) is not None for i in (1, 2) if node.has(i))
    exotic = node.dtype() not in (*CODES, *_NARROW, "int32")
    if known and (exotic or node.int("block_size", 0)):
        few_bits = decoded(node)
        if few_bits is not None:
            return few_bits
        kind = node.dtype() if exotic else "blocked"
        node.note(f"{kind} weights are stored as floats")
        return fold.evaluate(node)[0]
    if node.int("block_size", 0):
        raise node.refuse("blocked dequantization of values computed at run time")
    result = _attribute_dtype(node, "output_dtype", node.dtype(1))
    if result not in RUNTIME_DTYPES:
        raise node.refuse(f"dequantization to {result}")
    return dequantized(node, 0, 1, 2, node.int("axis", 1), result)


def _dynamic_quantize_linear(node: Node) -> tuple[Result, ...]:
    """Scale and zero point from the range of the values, which always includes zero."""
    zero, top = node.scalar(0.0), node.scalar(255.0)
    low = node.emit(op.minimum(op.min(node[0]), zero))
    high = op.maximum(op.max(node[0]), zero)
    spread = node.emit(op.divide(op.subtract(high, low), top))
    scale = node.emit(op.where(op.equal(spread, zero), node.scalar(1.0), spread))
    shift = op.round(op.divide(op.subtract(zero, low), scale))
    zero_point = node.emit(op.astype(op.clip(shift, 0.0, 255.0), "uint8"))
    return op.quantize(node[0], scale, zero_point, 0, "uint8"), scale, zero_point


QDQ_CONVERTERS = {
    "QuantizeLinear": _quantize_linear,
    "DequantizeLinear": _dequantize_linear,
    "DynamicQuantizeLinear": _dynamic_quantize_linear,
    "com.microsoft:QuantizeLinear": _quantize_linear,
    "com.microsoft:DequantizeLinear": _dequantize_linear,
}
