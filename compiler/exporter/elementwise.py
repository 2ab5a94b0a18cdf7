"""Arithmetic, comparisons, activations and casts: one result per element."""

from __future__ import annotations

import math

import numpy as np

from .graph import Node, Unsupported, onnx_type
from .rules import direct, rule

for _operator, _names in {
    "Abs": ["relax.abs"],
    "Acos": ["relax.acos"],
    "Acosh": ["relax.acosh"],
    "Add": ["relax.add"],
    "And": ["relax.logical_and"],
    "Asin": ["relax.asin"],
    "Asinh": ["relax.asinh"],
    "Atan": ["relax.atan"],
    "Atanh": ["relax.atanh"],
    "Ceil": ["relax.ceil"],
    "Cos": ["relax.cos"],
    "Cosh": ["relax.cosh"],
    "Div": ["relax.divide"],
    "Equal": ["relax.equal"],
    "Erf": ["relax.erf"],
    "Exp": ["relax.exp"],
    "Floor": ["relax.floor"],
    "Greater": ["relax.greater"],
    "GreaterOrEqual": ["relax.greater_equal"],
    "Identity": ["relax.nn.dropout"],
    "IsInf": ["relax.isinf"],
    "IsNaN": ["relax.isnan"],
    "Less": ["relax.less"],
    "LessOrEqual": ["relax.less_equal"],
    "Log": ["relax.log"],
    "Max": ["relax.maximum"],
    "Min": ["relax.minimum"],
    "Mul": ["relax.multiply"],
    "Neg": ["relax.negative"],
    "Not": ["relax.logical_not"],
    "Or": ["relax.logical_or"],
    "Pow": ["relax.power"],
    "Relu": ["relax.nn.relu"],
    "Round": ["relax.round"],
    "Sigmoid": ["relax.sigmoid"],
    "Sign": ["relax.sign"],
    "Sin": ["relax.sin"],
    "Sinh": ["relax.sinh"],
    "Sqrt": ["relax.sqrt"],
    "Sub": ["relax.subtract"],
    "Tan": ["relax.tan"],
    "Tanh": ["relax.tanh"],
    "Where": ["relax.where"],
    "Xor": ["relax.logical_xor"],
}.items():
    direct(_operator, *_names)


@rule("relax.not_equal")
def _not_equal(node: Node) -> None:
    node.done("Not", node.step("Equal", node[0], node[1]))


@rule("relax.square")
def _square(node: Node) -> None:
    node.done("Mul", node[0], node[0])


@rule("relax.rsqrt")
def _rsqrt(node: Node) -> None:
    node.done("Reciprocal", node.step("Sqrt", node[0]))


@rule("relax.trunc")
def _trunc(node: Node) -> None:
    size = node.step("Floor", node.step("Abs", node[0]))
    node.done("Mul", node.step("Sign", node[0]), size)


@rule("relax.isfinite")
def _isfinite(node: Node) -> None:
    either = node.step("Or", node.step("IsInf", node[0]), node.step("IsNaN", node[0]))
    node.done("Not", either)


@rule("relax.mod")
def _mod(node: Node) -> None:
    node.done("Mod", node[0], node[1], fmod=1)


_BITWISE = {
    "relax.bitwise_and": "BitwiseAnd",
    "relax.bitwise_not": "BitwiseNot",
    "relax.bitwise_or": "BitwiseOr",
    "relax.bitwise_xor": "BitwiseXor",
}


@rule(*_BITWISE)
def _bitwise(node: Node) -> None:
    node.require(18, "bitwise arithmetic")
    inputs = (node[index] for index in range(len(node.call.args)))
    node.done(_BITWISE[node.operator], *inputs)


def _is_float(dtype: str) -> bool:
    return dtype.startswith(("float", "bfloat"))


@rule("relax.floor_mod")
def _floor_mod(node: Node) -> None:
    if not _is_float(node.dtype()):
        node.done("Mod", node[0], node[1], fmod=0)
        return
    quotient = node.step("Floor", node.step("Div", node[0], node[1]))
    node.done("Sub", node[0], node.step("Mul", quotient, node[1]))


@rule("relax.floor_divide")
def _floor_divide(node: Node) -> None:
    if _is_float(node.dtype()):
        node.done("Floor", node.step("Div", node[0], node[1]))
        return
    multiple = node.step("Sub", node[0], node.step("Mod", node[0], node[1], fmod=0))
    node.done("Div", multiple, node[1])


@rule("relax.astype")
def _astype(node: Node) -> None:
    node.done("Cast", node[0], to=onnx_type(node.result_dtype))


@rule("relax.clip")
def _clip(node: Node) -> None:
    bounds = [
        "" if math.isinf(node.number(index)) else node.constant(node.number(index), label)
        for index, label in ((1, "min"), (2, "max"))
    ]
    while bounds and not bounds[-1]:
        bounds.pop()
    node.done("Clip", node[0], *bounds)


@rule("relax.nn.leakyrelu")
def _leaky_relu(node: Node) -> None:
    node.done("LeakyRelu", node[0], alpha=float(node.attrs.alpha))


@rule("relax.nn.prelu")
def _prelu(node: Node) -> None:
    slope = node.array(1)
    if slope is None:
        raise Unsupported("a slope that is computed at run time")
    # ONNX broadcasts the slope from the last axis; Relax gives it to one axis.
    trailing = node.rank() - 1 - node.axis()
    shape = (slope.size,) + (1,) * trailing
    node.done("PRelu", node[0], node.constant(slope.reshape(shape), "alpha"))


@rule("relax.nn.selu")
def _selu(node: Node) -> None:
    node.done("Selu", node[0])


@rule("relax.nn.silu")
def _silu(node: Node) -> None:
    node.done("Mul", node[0], node.step("Sigmoid", node[0]))


@rule("relax.nn.softplus")
def _softplus(node: Node) -> None:
    beta = float(node.attrs.beta)
    if beta == 1:
        node.done("Softplus", node[0])
        return
    scale = node.constant(beta, "beta")
    node.done("Div", node.step("Softplus", node.step("Mul", node[0], scale)), scale)


@rule("relax.nn.gelu")
def _gelu(node: Node) -> None:
    if node.graph.opset >= 20:
        node.done("Gelu", node[0])
        return
    inner = node.step("Erf", node.step("Mul", node[0], node.constant(math.sqrt(0.5), "sqrt_half")))
    half = node.step("Mul", node[0], node.constant(0.5, "half"))
    node.done("Mul", half, node.step("Add", inner, node.constant(1, "one")))


@rule("relax.nn.gelu_tanh")
def _gelu_tanh(node: Node) -> None:
    if node.graph.opset >= 20:
        node.done("Gelu", node[0], approximate="tanh")
        return
    square = node.step("Mul", node[0], node[0])
    cubic = node.step("Mul", square, node.constant(0.044715, "cubic"))
    factor = node.step("Add", cubic, node.constant(1, "one"))
    scaled = node.step("Mul", node[0], node.constant(math.sqrt(2 / math.pi), "sqrt_2_over_pi"))
    inner = node.step("Tanh", node.step("Mul", scaled, factor))
    half = node.step("Mul", node[0], node.constant(0.5, "half"))
    node.done("Mul", half, node.step("Add", inner, node.constant(1, "one")))


@rule("relax.nn.softmax", "relax.nn.log_softmax")
def _softmax(node: Node) -> None:
    operator = "Softmax" if node.operator == "relax.nn.softmax" else "LogSoftmax"
    node.done(operator, node[0], axis=node.axis())


@rule("relax.full", "relax.full_like", "relax.zeros", "relax.zeros_like")
@rule("relax.ones", "relax.ones_like")
def _full(node: Node) -> None:
    shape = node.result_extents
    dtype = node.result_dtype
    operator = node.operator
    fill = node.array(1) if "full" in operator else np.array("ones" in operator)
    if fill is None:
        value = node[1]
        if node.dtype(1) != dtype:
            value = node.step("Cast", value, to=onnx_type(dtype))
        node.done("Expand", value, node.sizes(shape, "shape"))
    elif all(isinstance(extent, int) for extent in shape):
        node.done("Identity", node.constant(np.full(shape, fill), "value", dtype))
    else:
        value = node.constant(fill, "value", dtype)
        node.done("Expand", value, node.sizes(shape, "shape"))


@rule("relax.arange")
def _arange(node: Node) -> None:
    bounds = [getattr(argument, "value", argument) for argument in node.call.args[:3]]
    if all(isinstance(bound, int | float) for bound in bounds):
        values = np.arange(*bounds)
        node.done("Identity", node.constant(values, "value", node.result_dtype))
        return
    # A symbolic bound is an integer, and so are the others then.
    places = [node.size(bound, label) for bound, label in zip(bounds, _BOUNDS, strict=True)]
    if node.result_dtype == "int64":
        node.done("Range", *places)
    else:
        node.done("Cast", node.step("Range", *places), to=onnx_type(node.result_dtype))


_BOUNDS = ("start", "limit", "delta")


@rule("relax.tril", "relax.triu")
def _triangle(node: Node) -> None:
    node.require(14, "Trilu")
    diagonal = node.constant(int(node.number(1)), "k", "int64")
    node.done("Trilu", node[0], diagonal, upper=int(node.operator == "relax.triu"))
