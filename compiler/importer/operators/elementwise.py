"""Arithmetic, comparison, logic and casts, element by element with broadcasting."""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np
import onnx
from tvm import relax

from ..limits import RUNTIME_DTYPES
from ..node import Node, Result

op = relax.op


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
    if np.dtype(node.dtype()).kind == "f":
        return op.divide(node[0], node[1])
    # Integer division truncates towards zero in ONNX. There is no such operator in Relax, and
    # float64 holds quotients of 32-bit integers exactly; 64-bit ones are refused.
    if np.dtype(node.dtype()).itemsize > 4:
        raise node.refuse("64-bit integer division at run time")
    wide = [op.astype(node[i], "float64") for i in (0, 1)]
    return op.astype(op.trunc(op.divide(*wide)), node.dtype())


def _modulo(node: Node) -> Result:
    # `fmod` has the dividend's sign (C), the other the divisor's (Python).
    if node.int("fmod", 0):
        return op.mod(node[0], node[1])
    if np.dtype(node.dtype()).kind == "f":
        raise node.refuse("a floating-point remainder with fmod=0")
    return op.floor_mod(node[0], node[1])


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
    """Clip with bounds as attributes (opset 6) or inputs; missing bounds are left out."""
    x = node[0]
    lower = upper = None
    if node.opset < 11:
        lower = node.float("min", 0.0) if node.has_attribute("min") else None
        upper = node.float("max", 0.0) if node.has_attribute("max") else None
    else:
        bounds = [node.constant(i) if node.has(i) else None for i in (1, 2)]
        if any(node.has(i) and bounds[i - 1] is None for i in (1, 2)):
            # Bounds computed at run time.
            x = op.maximum(x, node[1]) if node.has(1) else x
            return op.minimum(x, node[2]) if node.has(2) else x
        lower, upper = (None if b is None else b.reshape(()).item() for b in bounds)
    dtype = np.dtype(node.dtype())
    if lower is not None and upper is not None and lower <= upper and dtype.kind == "f":
        if np.isfinite(lower) and np.isfinite(upper):
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
