"""``relax.quantize`` and ``relax.dequantize`` as ONNX's QuantizeLinear and DequantizeLinear."""

from __future__ import annotations

import numpy as np

from .graph import Node, Unsupported
from .rules import rule


def _parameters(node: Node, dtype: str) -> tuple[list[str], dict[str, int]]:
    """Names of scale and zero point, and the axis where the scale is a vector that needs one."""
    if dtype in ("int16", "uint16"):
        node.require(21, f"quantization to {dtype}")
    extent = node.shape()[node.axis()] if node.rank() else 1
    scale, zero_point = node.array(1), node.array(2)
    if scale is None or zero_point is None:
        raise Unsupported("a scale or zero point that is computed at run time")
    per_tensor = scale.size == 1 and zero_point.size == 1 and extent != 1
    if scale.ndim == 0 or per_tensor:
        shape, attributes = (), {}
    else:
        shape, attributes = (extent,), {"axis": node.axis()}
    inputs = [node.constant(_spread(scale, shape), "scale", str(scale.dtype))]
    limits = np.iinfo(dtype)
    if zero_point.min() < limits.min or zero_point.max() > limits.max:
        raise Unsupported(f"a zero point outside {dtype}")
    if dtype != "int32":
        inputs.append(node.constant(_spread(zero_point, shape), "zero_point", dtype))
    elif zero_point.any():
        raise Unsupported("an int32 zero point other than 0")
    return inputs, attributes


def _spread(value: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    return np.broadcast_to(value.reshape(-1) if shape else value.reshape(()), shape)


@rule("relax.quantize")
def _quantize(node: Node) -> None:
    inputs, attributes = _parameters(node, node.result_dtype)
    node.done("QuantizeLinear", node[0], *inputs, **attributes)


@rule("relax.dequantize")
def _dequantize(node: Node) -> None:
    inputs, attributes = _parameters(node, node.dtype())
    node.done("DequantizeLinear", node[0], *inputs, **attributes)
