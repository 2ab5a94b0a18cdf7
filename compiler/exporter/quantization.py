"""``relax.quantize`` and ``relax.dequantize`` as ONNX's QuantizeLinear and DequantizeLinear."""

from __future__ import annotations

import numpy as np

from .graph import Node, Unsupported
from .rules import rule


def _parameters(node: Node, dtype: str) -> tuple[list[str], dict[str, int]]:
    """Names of scale and zero point, and the axis where they are vectors."""
    if dtype in ("int16", "uint16"):
        node.require(21, f"quantization to {dtype}")
    extent = node.extents()[node.axis()] if node.rank() else 1
    counts = [int(np.prod(node.shape(index))) for index in (1, 2)]
    # One element is a vector only where the axis has one element as well.
    per_axis = max(counts) > 1 or (extent == 1 and node.rank(1) == 1)
    shape = (max(counts),) if per_axis else ()
    inputs = [_parameter(node, 1, shape, None)]
    if dtype != "int32":
        inputs.append(_parameter(node, 2, shape, dtype))
    elif node.array(2) is None or np.any(node.array(2)):
        raise Unsupported("a zero point of int32 values")
    return inputs, {"axis": node.axis()} if per_axis else {}


def _parameter(node: Node, index: int, shape: tuple[int, ...], dtype: str | None) -> str:
    """A scale or zero point with the shape and dtype that ONNX wants."""
    array = node.array(index)
    if array is None:
        if node.shape(index) != shape or node.dtype(index) != (dtype or node.dtype(index)):
            raise Unsupported("run-time quantization parameters of another shape or dtype")
        return node[index]
    dtype = dtype or str(array.dtype)
    if array.dtype.kind in "iu" and not np.array_equal(array, array.astype(dtype)):
        raise Unsupported(f"a zero point outside {dtype}")
    label = "scale" if index == 1 else "zero_point"
    flat = array.reshape(-1) if shape else array.reshape(())
    return node.constant(np.broadcast_to(flat, shape), label, dtype)


@rule("relax.quantize")
def _quantize(node: Node) -> None:
    inputs, attributes = _parameters(node, node.result_dtype)
    node.done("QuantizeLinear", node[0], *inputs, **attributes)


@rule("relax.dequantize")
def _dequantize(node: Node) -> None:
    inputs, attributes = _parameters(node, node.dtype())
    node.done("DequantizeLinear", node[0], *inputs, **attributes)
