"""Operators on codes, as onnxruntime's QOperator format has them.

Each becomes dequantize → the float operator, by its own converter → quantize, so that a model
gives the same module in either format. All but ``QLinearConv`` and ``QLinearMatMul`` are
onnxruntime's own (domain ``com.microsoft``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper
from tvm import relax

from .node import Node, Result
from .operators import activation, convolution, elementwise, linear, movement, pooling
from .qdq import dequantized, quantized
from .values import Value

op: Any = relax.op  # its annotations are narrower than what it takes

_FLOAT = {
    name: converter
    for family in (activation, convolution, elementwise, linear, movement, pooling)
    for name, converter in family.CONVERTERS.items()
}

#: onnxruntime's operators do not say which opset their attributes follow; this one has the
#: attribute forms that they use.
_FLOAT_OPSET = 13


def _float_operator(
    node: Node, operator: str, inputs: Sequence[relax.Expr | None], **attributes: object
) -> relax.Expr:
    """The float operator of a quantized one, by its own converter.

    It has the node's attributes; `attributes` replaces some, None removes one.
    """
    proto = onnx.NodeProto(op_type=operator, name=node.proto.name, output=node.proto.output[:1])
    proto.input.extend("" if value is None else str(i) for i, value in enumerate(inputs))
    proto.attribute.extend(a for a in node.proto.attribute if a.name not in attributes)
    for name, value in attributes.items():
        if value is not None:
            proto.attribute.append(helper.make_attribute(name, value))
    opset = node.opset if node.proto.domain in ("", "ai.onnx") else _FLOAT_OPSET
    values: list[Value | None] = [None if v is None else node.emit(v) for v in inputs]
    inner = Node(proto, node.name, opset, values, 1, node.builder)
    result = _FLOAT[operator](inner)
    assert isinstance(result, relax.Expr)
    return result


def _qlinear_unary(operator: str) -> Callable[[Node], Result]:
    """x, x_scale, x_zero, y_scale, y_zero."""

    def convert(node: Node) -> Result:
        result = _float_operator(node, operator, [dequantized(node, 0, 1, 2)])
        return quantized(node, result, 3, 4, node.dtype(0))

    return convert


def _qlinear_binary(operator: str) -> Callable[[Node], Result]:
    """a, a_scale, a_zero, b, b_scale, b_zero, y_scale, y_zero."""

    def convert(node: Node) -> Result:
        inputs = [dequantized(node, 0, 1, 2), dequantized(node, 3, 4, 5)]
        result = _float_operator(node, operator, inputs)
        return quantized(node, result, 6, 7, node.dtype(0))

    return convert


def _bias(
    node: Node, index: int, data_scale: int, weight_scale: int, factor: float = 1.0
) -> relax.Expr | None:
    """An int32 bias, whose scale is the product of the data's and the weights'."""
    if not node.has(index):
        return None
    scale = node.known(data_scale, "the input's scale") * node.known(
        weight_scale, "the weights' scale"
    )
    scale = (scale * np.float32(factor)).reshape(-1).astype("float32")
    vector = scale.size > 1
    return op.dequantize(
        node[index],
        relax.const(scale if vector else scale[0]),
        relax.const(np.zeros(scale.shape if vector else (), "int32")),
        -1 if vector else 0,
        "float32",
    )


def _qlinear_conv(node: Node) -> Result:
    inputs = [dequantized(node, 0, 1, 2), dequantized(node, 3, 4, 5, 0), _bias(node, 8, 1, 4)]
    result = _float_operator(node, "Conv", inputs)
    return quantized(node, result, 6, 7, node.dtype(7) if node.has(7) else "uint8")


def _qlinear_matmul(node: Node) -> Result:
    left, right = dequantized(node, 0, 1, 2, -2), dequantized(node, 3, 4, 5, -1)
    result = _float_operator(node, "MatMul", [left, right])
    return quantized(node, result, 6, 7, node.dtype(7))


def _qgemm(node: Node) -> Result:
    transposed = bool(node.int("transB", 0))
    alpha = node.float("alpha", 1.0)
    weights = dequantized(node, 3, 4, 5, 0 if transposed else 1)
    inputs = [dequantized(node, 0, 1, 2), weights, _bias(node, 6, 1, 4, alpha)]
    result = _float_operator(node, "Gemm", inputs)
    if not node.has(7):
        return result
    return quantized(node, result, 7, 8, node.dtype(8) if node.has(8) else node.dtype(0))


def _qlinear_pool(operator: str) -> Callable[[Node], Result]:
    """x, x_scale, x_zero, y_scale, y_zero; channels are at axis 1 or, with a flag, last."""

    def convert(node: Node) -> Result:
        data = dequantized(node, 0, 1, 2)
        rank, last = node.rank(), node.int("channels_last", 0)
        if last:
            data = op.permute_dims(data, [0, rank - 1, *range(1, rank - 1)])
        result = _float_operator(node, operator, [data], channels_last=None)
        if last:
            result = op.permute_dims(result, [0, *range(2, rank), 1])
        return quantized(node, result, 3, 4, node.dtype(0))

    return convert


def _qlinear_concat(node: Node) -> Result:
    """y_scale, y_zero, then x, x_scale, x_zero of each part."""
    parts: list[relax.Expr | None] = [
        dequantized(node, index, index + 1, index + 2) for index in range(2, len(node.inputs), 3)
    ]
    return quantized(node, _float_operator(node, "Concat", parts), 0, 1, node.dtype(1))


def _qlinear_softmax(node: Node) -> Result:
    # Since opset 13 softmax is over one axis; before, over all axes from `axis` on.
    opset = node.int("opset", _FLOAT_OPSET)
    axis = node.int("axis", -1)
    data = dequantized(node, 0, 1, 2)
    if opset < 13 and axis % node.rank() != node.rank() - 1:
        raise node.refuse("softmax over several axes")
    result = _float_operator(node, "Softmax", [data], opset=None, axis=axis)
    return quantized(node, result, 3, 4, node.dtype(0))


def _qlinear_where(node: Node) -> Result:
    """condition, x, x_scale, x_zero, y, y_scale, y_zero, z_scale, z_zero."""
    chosen = [node[0], dequantized(node, 1, 2, 3), dequantized(node, 4, 5, 6)]
    result = _float_operator(node, "Where", chosen)
    return quantized(node, result, 7, 8, node.dtype(1))


def _fused_conv(node: Node) -> Result:
    """A float convolution, an optional addend, and an activation by name."""
    kind = node.string("activation", "")
    parameters = _floats(node, "activation_params")
    drop = {"activation": None, "activation_params": None}
    inputs = [node[i] if node.has(i) else None for i in range(3)]
    result = _float_operator(node, "Conv", inputs, **drop)
    if node.has(3):
        result = op.add(result, node[3])
    if kind in ("", "Relu", "Sigmoid", "Tanh"):
        return _plain_activation(kind, result)
    if kind == "LeakyRelu" and len(parameters) == 1:
        return op.nn.leakyrelu(result, parameters[0])
    if kind == "Clip" and len(parameters) == 2:
        return op.clip(result, *parameters)
    raise node.refuse(f"activation {kind!r}")


def _floats(node: Node, name: str) -> list[float]:
    values = [list(a.floats) for a in node.proto.attribute if a.name == name]
    return values[0] if values else []


def _plain_activation(kind: str, value: relax.Expr) -> relax.Expr:
    if kind == "Relu":
        return op.nn.relu(value)
    if kind == "Sigmoid":
        return op.sigmoid(value)
    return op.tanh(value) if kind == "Tanh" else value


_MICROSOFT = {
    "QLinearAdd": _qlinear_binary("Add"),
    "QLinearMul": _qlinear_binary("Mul"),
    "QLinearSigmoid": _qlinear_unary("Sigmoid"),
    "QLinearLeakyRelu": _qlinear_unary("LeakyRelu"),
    "QLinearSoftmax": _qlinear_softmax,
    "QLinearGlobalAveragePool": _qlinear_pool("GlobalAveragePool"),
    "QLinearAveragePool": _qlinear_pool("AveragePool"),
    "QLinearConcat": _qlinear_concat,
    "QLinearWhere": _qlinear_where,
    "QGemm": _qgemm,
    "FusedConv": _fused_conv,
}

QOPERATOR_CONVERTERS = {
    "QLinearConv": _qlinear_conv,
    "QLinearMatMul": _qlinear_matmul,
    **{f"com.microsoft:{name}": converter for name, converter in _MICROSOFT.items()},
}
