"""Activation functions."""

from __future__ import annotations

import math
from typing import Any

from tvm import relax

from ..node import Node, Result
from ..values import constant

op: Any = relax.op


def _relu(node: Node) -> Result:
    return op.nn.relu(node[0])


def _leaky_relu(node: Node) -> Result:
    return op.nn.leakyrelu(node[0], node.float("alpha", 0.01))


def _prelu(node: Node) -> Result:
    """PRelu; a slope per channel, the common case, becomes `nn.prelu`."""
    slope, shape = node.constant(1), node.shape(0)
    if slope is not None and len(shape) > 1:
        aligned = (1,) * (len(shape) - slope.ndim) + slope.shape
        per_channel = all(e == 1 for axis, e in enumerate(aligned) if axis != 1)
        if slope.ndim <= len(shape) and per_channel and aligned[1] in (1, shape[1]):
            flat = slope.reshape(-1)
            if flat.size != shape[1]:
                flat = flat.repeat(shape[1])
            return op.nn.prelu(node[0], constant(flat), axis=1)
    x = node[0]
    return op.where(op.less(x, node.scalar(0)), op.multiply(x, node[1]), x)


def _sigmoid(node: Node) -> Result:
    return op.sigmoid(node[0])


def _tanh(node: Node) -> Result:
    return op.tanh(node[0])


def _hard_sigmoid_of(node: Node, alpha: float, beta: float) -> relax.Expr:
    line = op.add(op.multiply(node[0], node.scalar(alpha)), node.scalar(beta))
    return op.clip(line, 0.0, 1.0)


def _hard_sigmoid(node: Node) -> Result:
    return _hard_sigmoid_of(node, node.float("alpha", 0.2), node.float("beta", 0.5))


def _hard_swish(node: Node) -> Result:
    return op.multiply(node[0], _hard_sigmoid_of(node, 1.0 / 6.0, 0.5))


def _gelu(node: Node) -> Result:
    form = node.string("approximate", "none")
    if form == "none":
        return op.nn.gelu(node[0])
    if form == "tanh":
        return op.nn.gelu_tanh(node[0])
    raise node.refuse(f"approximate={form!r}")


def _exponential_below_zero(node: Node, alpha: float, gamma: float, rate: float) -> relax.Expr:
    """``gamma * (x if x > 0 else alpha * (exp(x * rate) - 1))``; min keeps exp from overflowing."""
    x, zero = node[0], node.scalar(0.0)
    below = op.minimum(x, zero)
    if rate != 1.0:
        below = op.multiply(below, node.scalar(rate))
    negative = op.multiply(op.subtract(op.exp(below), node.scalar(1.0)), node.scalar(alpha))
    result = op.add(op.nn.relu(x), negative)
    return result if gamma == 1.0 else op.multiply(result, node.scalar(gamma))


def _elu(node: Node) -> Result:
    return _exponential_below_zero(node, node.float("alpha", 1.0), 1.0, 1.0)


def _selu(node: Node) -> Result:
    alpha = node.float("alpha", 1.67326319217681884765625)
    return _exponential_below_zero(node, alpha, node.float("gamma", 1.05070102214813232421875), 1.0)


def _celu(node: Node) -> Result:
    alpha = node.float("alpha", 1.0)
    if alpha == 0.0:
        raise node.error("invalid-node", "Celu with alpha = 0 divides by zero")
    return _exponential_below_zero(node, alpha, 1.0, 1.0 / alpha)


def _softplus(node: Node) -> Result:
    return op.nn.softplus(node[0])


def _mish(node: Node) -> Result:
    """``x * tanh(log(1 + n))`` with ``n = exp(x)``, which is ``x * m / (m + 2)``, ``m = n(n + 2)``.

    The second form keeps its precision where n is small; above 20 the quotient is 1.
    """
    n = node.emit(op.exp(op.minimum(node[0], node.scalar(20.0))))
    m = node.emit(op.multiply(n, op.add(n, node.scalar(2.0))))
    return op.multiply(node[0], op.divide(m, op.add(m, node.scalar(2.0))))


def _softsign(node: Node) -> Result:
    return op.divide(node[0], op.add(op.abs(node[0]), node.scalar(1.0)))


def _swish(node: Node) -> Result:
    alpha = node.float("alpha", 1.0)
    if alpha == 1.0:
        return op.nn.silu(node[0])
    return op.multiply(node[0], op.sigmoid(op.multiply(node[0], node.scalar(alpha))))


def _thresholded_relu(node: Node) -> Result:
    above = op.greater(node[0], node.scalar(node.float("alpha", 1.0)))
    return op.where(above, node[0], node.scalar(0.0))


def _shrink(node: Node) -> Result:
    x, bias, threshold = node[0], node.float("bias", 0.0), node.float("lambd", 0.5)
    low = op.where(
        op.less(x, node.scalar(-threshold)), op.add(x, node.scalar(bias)), node.scalar(0)
    )
    return op.where(op.greater(x, node.scalar(threshold)), op.subtract(x, node.scalar(bias)), low)


def _softmax_like(function: object, node: Node) -> Result:
    """From opset 13 over one axis; before, over all axes from `axis` on, flattened."""
    if node.opset >= 13:
        return function(node[0], axis=node.axis("axis", -1))  # type: ignore[operator]
    rank, axis = node.rank(), node.axis("axis", 1) if node.rank() > 1 else 0
    if axis == rank - 1:
        return function(node[0], axis=axis)  # type: ignore[operator]
    shape = node.extents(0)
    flat = op.reshape(node[0], (math.prod(shape[:axis]), math.prod(shape[axis:])))
    return op.reshape(function(flat, axis=1), shape)  # type: ignore[operator]


def _softmax(node: Node) -> Result:
    return _softmax_like(op.nn.softmax, node)


def _log_softmax(node: Node) -> Result:
    return _softmax_like(op.nn.log_softmax, node)


CONVERTERS = {
    "Relu": _relu,
    "LeakyRelu": _leaky_relu,
    "PRelu": _prelu,
    "Sigmoid": _sigmoid,
    "Tanh": _tanh,
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": _hard_swish,
    "Gelu": _gelu,
    "Elu": _elu,
    "Selu": _selu,
    "Celu": _celu,
    "Softplus": _softplus,
    "Softsign": _softsign,
    "Mish": _mish,
    "Swish": _swish,
    "ThresholdedRelu": _thresholded_relu,
    "Shrink": _shrink,
    "Softmax": _softmax,
    "LogSoftmax": _log_softmax,
}
