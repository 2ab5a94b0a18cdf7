"""Arithmetic, comparison, logic and casts, element by element with broadcasting."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from tvm import relax

from ..limits import RUNTIME_DTYPES
from ..node import Node, Result

op: Any = relax.op


def _unary(function: Callable[[relax.Expr], relax.Expr]) -> Callable[[Node], Result]:
    return lambda node: function(node[0])


def _binary(function: Callable[[relax.Expr, relax.Expr], relax.Expr]) -> Callable[[Node], Result]:
    def convert(node: Node) -> Result:
        return function(node[0], node[1])

    return convert


def _variadic(function: Callable[[relax.Expr, relax.Expr], relax.Expr]) -> Callable[[Node], Result]:
    """Operators over any number of inputs; one input is the result itself."""

    def convert(node: Node) -> Result:
        return functools.reduce(function, node.expressions())

    return convert


def _mean(node: Node) -> Result:
    total = functools.reduce(op.add, node.expressions())
    count = len(node.inputs)
    return total if count == 1 else op.multiply(total, node.scalar(1.0 / count))


def _divide(node: Node) -> Result:
    """Division; of integers it truncates towards zero, while Relax's rounds down."""
    kind = np.dtype(node.dtype()).kind
    if kind == "i":
        sign = op.multiply(op.sign(node[0]), op.sign(node[1]))
        return op.multiply(sign, op.floor_divide(op.abs(node[0]), op.abs(node[1])))
    if kind == "u":
        return op.floor_divide(node[0], node[1])
    return op.divide(node[0], node[1])


def _modulo(node: Node) -> Result:
    """Remainder with the dividend's sign (`fmod`, as in C) or the divisor's (as in Python)."""
    x, y = node[0], node[1]
    if node.int("fmod", 0):
        return op.mod(x, y)
    if np.dtype(node.dtype()).kind in "iu":
        return op.floor_mod(x, y)
    remainder, zero = node.emit(op.mod(x, y)), node.scalar(0.0)
    differ = op.logical_xor(op.less(remainder, zero), op.less(y, zero))
    wrong = op.logical_and(op.not_equal(remainder, zero), differ)
    return op.where(wrong, op.add(remainder, y), remainder)


def _power(node: Node) -> Result:
    """Pow: exponents that networks use become multiplications and roots, which are exact."""
    exponent = node.constant(1)
    base = node[0]
    if np.dtype(node.dtype()).kind != "f":
        return _integer_power(node)
    if exponent is not None and exponent.size == 1 and node.rank(1) <= node.rank(0):
        value = float(exponent.reshape(()))
        if value == 1.0:
            return base
        if value == 2.0:
            return op.multiply(base, base)
        if value == 3.0:
            return op.multiply(op.multiply(base, base), base)
        if value == 0.5:
            return op.sqrt(base)
        if value == -0.5:
            return op.divide(node.scalar(1.0), op.sqrt(base))
        if value == -1.0:
            return op.divide(node.scalar(1.0), base)
    other = node[1]
    if node.dtype(1) != node.dtype():
        other = op.astype(other, node.dtype())
    return op.power(base, other)


def _integer_power(node: Node) -> Result:
    """Integer bases are computed in float64, exact as long as results stay under 2^53."""
    wide = op.power(op.astype(node[0], "float64"), op.astype(node[1], "float64"))
    return op.astype(op.round(wide), node.dtype())


def _reciprocal(node: Node) -> Result:
    return op.divide(node.scalar(1.0), node[0])


def _clip(node: Node) -> Result:
    """Clip; bounds that are not given are left out."""
    x = node[0]
    bounds = [node.constant(i) if node.has(i) else None for i in (1, 2)]
    if any(node.has(i) and bounds[i - 1] is None for i in (1, 2)):
        x = op.maximum(x, node[1]) if node.has(1) else x
        return op.minimum(x, node[2]) if node.has(2) else x
    lower: Any = None if bounds[0] is None else bounds[0].reshape(()).item()
    upper: Any = None if bounds[1] is None else bounds[1].reshape(()).item()
    dtype = np.dtype(node.dtype())
    bounded = None not in (lower, upper) and bool(np.isfinite([lower, upper]).all())
    if bounded and lower <= upper and dtype.kind == "f":
        return op.clip(x, float(lower), float(upper))
    if lower == 0 and upper is None and dtype.kind == "f":
        return op.nn.relu(x)
    # In this order an upper bound below the lower one wins, as ONNX has it.
    if lower is not None:
        x = op.maximum(x, node.scalar(lower))
    if upper is not None:
        x = op.minimum(x, node.scalar(upper))
    return x


def _cast_target(node: Node) -> str:
    code = node.int("to", 0)
    try:
        dtype = str(onnx.helper.tensor_dtype_to_np_dtype(code))
    except KeyError:
        raise node.error("invalid-node", f"Cast to unknown type {code}") from None
    if dtype not in RUNTIME_DTYPES:
        name = onnx.TensorProto.DataType.Name(code)
        raise node.error("unsupported-dtype", f"Cast to {name} at run time")
    return dtype


def cast(node: Node, x: relax.Expr, source: str, target: str) -> relax.Expr:
    """`x` of dtype `source` as `target`, by ONNX's rules."""
    if source == target:
        return x
    if target == "bool":
        return op.not_equal(x, relax.const(0, source))
    return op.astype(x, target)


def _cast(node: Node) -> Result:
    return cast(node, node[0], node.dtype(), _cast_target(node))


def _cast_like(node: Node) -> Result:
    target = node.dtype(1)
    if target not in RUNTIME_DTYPES:
        raise node.error("unsupported-dtype", f"CastLike to {target} at run time")
    return cast(node, node[0], node.dtype(), target)


def _where(node: Node) -> Result:
    return op.where(node[0], node[1], node[2])


def _identity(node: Node) -> Result:
    return node[0]


def _dropout(node: Node) -> tuple[Result, ...] | Result:
    """Nothing at inference; the mask, where the model asks for it, is all true."""
    if node.opset >= 12 and node.has(2) and bool(node.known(2, "training_mode").any()):
        raise node.refuse("training mode", "export the model for inference")
    if node.output_count == 1:
        return node[0]
    return node[0], np.ones(node.shape(0), dtype=bool)


CONVERTERS = {
    "Add": _binary(op.add),
    "Sub": _binary(op.subtract),
    "Mul": _binary(op.multiply),
    "Div": _divide,
    "Mod": _modulo,
    "Pow": _power,
    "Sum": _variadic(op.add),
    "Mean": _mean,
    "Min": _variadic(op.minimum),
    "Max": _variadic(op.maximum),
    "Abs": _unary(op.abs),
    "Neg": _unary(op.negative),
    "Sqrt": _unary(op.sqrt),
    "Exp": _unary(op.exp),
    "Log": _unary(op.log),
    "Erf": _unary(op.erf),
    "Floor": _unary(op.floor),
    "Ceil": _unary(op.ceil),
    "Round": _unary(op.round),
    "Sin": _unary(op.sin),
    "Cos": _unary(op.cos),
    "Reciprocal": _reciprocal,
    "Sign": _unary(op.sign),
    "Clip": _clip,
    "Equal": _binary(op.equal),
    "Greater": _binary(op.greater),
    "GreaterOrEqual": _binary(op.greater_equal),
    "Less": _binary(op.less),
    "LessOrEqual": _binary(op.less_equal),
    "And": _binary(op.logical_and),
    "Or": _binary(op.logical_or),
    "Xor": _binary(op.logical_xor),
    "Not": _unary(op.logical_not),
    "Where": _where,
    "Cast": _cast,
    "CastLike": _cast_like,
    "Identity": _identity,
    "Dropout": _dropout,
}
