"""What the rules of the integer-only pass look at: codes, constants and clamps in QDQ form."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
from tvm import ir, relax

from ...ops.registry import make_call
from ..rewrite import Rewriter, as_array, constant, layer_of, operator_of


@dataclasses.dataclass(frozen=True)
class Codes:
    """An int8 tensor with one scale and zero point: `expression` is in the new module."""

    expression: relax.Expr
    scale: float
    zero_point: int

    @property
    def shape(self) -> tuple[int, ...]:
        """Static shape."""
        return tuple(int(d) for d in self.expression.ty.shape.values)


@dataclasses.dataclass(frozen=True)
class Weights:
    """Integer weights: real value = (codes - zero_point) * scale along `axis`.

    `codes` already has the zero point subtracted: int8 range when symmetric, up to ±255 otherwise.
    """

    codes: np.ndarray
    scale: np.ndarray
    axis: int


@dataclasses.dataclass(frozen=True)
class Target:
    """What a rule must produce: codes with this meaning, after an optional clamp.

    `stands_for` is the name of the real value that the codes approximate, for reports.
    """

    scale: float
    zero_point: int
    minimum: int = -128
    maximum: int = 127
    stands_for: str = ""

    def clamped(self, low: float | None, high: float | None) -> Target:
        """The same with real bounds applied."""

        def code(real: float) -> int:
            steps = np.rint(np.float64(real) / self.scale) + self.zero_point
            return int(np.clip(steps, -128, 127))

        minimum = self.minimum if low is None else max(self.minimum, code(low))
        maximum = self.maximum if high is None else min(self.maximum, code(high))
        return dataclasses.replace(self, minimum=minimum, maximum=max(minimum, maximum))


class Context:
    """The module being converted, seen from one quantize."""

    def __init__(self, module: ir.IRModule) -> None:
        self.rewriter = Rewriter(module)
        self.names = {var.name for var, _ in self.rewriter.bindings}
        #: Splits of float values, with the same split of their codes.
        self.splits: dict[relax.Expr, relax.Var] = {}

    def definition(self, expression: relax.Expr) -> relax.Expr:
        """The expression that a variable is bound to; anything else is itself."""
        while isinstance(expression, relax.Var) and expression in self.rewriter.values:
            expression = self.rewriter.values[expression]
        return expression

    def call(self, expression: relax.Expr, *operators: str) -> relax.Call | None:
        """The call of one of these operators that defines the expression, or None."""
        value = self.definition(expression)
        if operator_of(value) in operators:
            assert isinstance(value, relax.Call)
            return value
        return None

    def codes(self, expression: relax.Expr) -> Codes | None:
        """The int8 tensor of which the expression is the dequantized value."""
        call = self.call(expression, "relax.dequantize")
        if call is None:
            return None
        parameters = scalar_parameters(call)
        data = self.rewriter.map(call.args[0])
        if parameters is None or data.ty.dtype != "int8":
            return None
        return Codes(data, *parameters)

    def constant(self, expression: relax.Expr) -> np.ndarray | None:
        """The real value of a constant, dequantized, reshaped or transposed constant (float64)."""
        value = self.definition(expression)
        if isinstance(value, ir.GenericConst):
            return as_array(value).astype(np.float64)
        if (call := self.call(value, "relax.reshape")) is not None:
            inner = self.constant(call.args[0])
            shape = [int(d) for d in call.ty.shape.values]
            return None if inner is None else inner.reshape(shape)
        weights = self.weights(value)
        if weights is None:
            return None
        return weights.codes * along_axis(weights.scale, weights.axis, weights.codes.ndim)

    def weights(self, expression: relax.Expr) -> Weights | None:
        """Constant integer weights behind dequantize, through transposes."""
        value = self.definition(expression)
        if (call := self.call(value, "relax.permute_dims")) is not None:
            inner = self.weights(call.args[0])
            if inner is None:
                return None
            axes = permutation(call)
            return Weights(inner.codes.transpose(axes), inner.scale, axes.index(inner.axis))
        call = self.call(value, "relax.dequantize")
        if call is None or not all(
            isinstance(self.definition(a), ir.GenericConst) for a in call.args
        ):
            return None
        codes, scale, zero_point = (as_array(self.definition(a)) for a in call.args)
        axis = int(call.attrs.axis) % max(codes.ndim, 1)
        scale = np.atleast_1d(scale.astype(np.float64))
        if len(scale) == 1:
            scale = np.repeat(scale, codes.shape[axis] if codes.ndim else 1)
        wide = codes.astype(np.int64)
        wide -= along_axis(np.atleast_1d(zero_point.astype(np.int64)), axis, codes.ndim)
        return Weights(wide, scale, axis)

    def clamp(self, expression: relax.Expr, target: Target) -> tuple[relax.Expr, Target]:
        """The value under ReLUs and clips, and the target with their bounds."""
        while True:
            if (call := self.call(expression, "relax.nn.relu")) is not None:
                target = target.clamped(0.0, None)
            elif (call := self.call(expression, "relax.clip")) is not None:
                low, high = (number(a) for a in call.args[1:3])
                target = target.clamped(low, high)
            else:
                return expression, target
            expression = call.args[0]

    def name(self, expression: relax.Expr) -> str:
        """The layer's name of a variable, for naming what replaces it."""
        name = expression.name if isinstance(expression, relax.Var) else "value"
        return layer_of(name, self.names)

    def emit(
        self, operator: str, arguments: list[relax.Expr], name: str, target: Target, **attrs: Any
    ) -> relax.Var:
        """Emit one of our operators, carrying what its output's codes mean."""
        attrs = {key: _plain(value) for key, value in attrs.items()}
        call = make_call(
            operator,
            arguments,
            **attrs,
            scale=target.scale,
            zero_point=target.zero_point,
            stands_for=target.stands_for,
        )
        return self.rewriter.emit(call, name)

    def quantize(self, value: relax.Var, target: Target) -> Codes:
        """Emit the quantize of an old float value, which stays float."""
        scale, zero_point = np.float32(target.scale), np.int8(target.zero_point)
        codes = relax.op.quantize(
            self.rewriter.map(value), constant(scale), constant(zero_point), -1, "int8"
        )
        var = self.rewriter.emit(codes, f"{value.name}:q")
        return Codes(var, target.scale, target.zero_point)

    def dequantize(self, codes: Codes, name: str) -> relax.Var:
        """Emit the real value of codes."""
        scale, zero_point = np.float32(codes.scale), np.int8(codes.zero_point)
        real = relax.op.dequantize(
            codes.expression, constant(scale), constant(zero_point), -1, "float32"
        )
        return self.rewriter.emit(real, name)

    def permute(self, expression: relax.Expr, axes: list[int], name: str) -> relax.Var:
        """Emit a transposition."""
        return self.rewriter.emit(relax.op.permute_dims(expression, axes), name)

    def with_axis_last(
        self,
        codes: Codes,
        axis: int,
        name: str,
        compute: Callable[[relax.Expr], relax.Var],
    ) -> relax.Expr:
        """What `compute` makes of the codes while `axis` is the last one; it keeps the shape."""
        rank = len(codes.shape)
        if axis == rank - 1:
            return compute(codes.expression)
        order = [*(i for i in range(rank) if i != axis), axis]
        result = compute(self.permute(codes.expression, order, f"{name}:in"))
        return self.permute(result, [order.index(i) for i in range(rank)], f"{name}:out")

    def reshape(self, expression: relax.Expr, shape: list[int], name: str) -> relax.Var:
        """Emit a reshape."""
        return self.rewriter.emit(relax.op.reshape(expression, shape), name)

    def lookup(self, codes: relax.Expr, table: np.ndarray, name: str, target: Target) -> relax.Var:
        """Emit a table look-up; `table` is int8 [256], indexed by code + 128."""
        return self.emit("fewbits.lookup", [codes, constant(table)], name, target)

    def rescale(self, codes: Codes, target: Target, name: str) -> relax.Expr:
        """The codes with the target's scale, zero point and clamp: nothing, or a table."""
        same = codes.scale == target.scale and codes.zero_point == target.zero_point
        if same and (target.minimum, target.maximum) == (-128, 127):
            return codes.expression
        real = (np.arange(-128, 128, dtype=np.float64) - codes.zero_point) * codes.scale
        return self.lookup(codes.expression, encode(real, target), name, target)


def encode(real: np.ndarray, target: Target) -> np.ndarray:
    """int8 codes of reals; NaN becomes the zero point."""
    steps = np.rint(np.nan_to_num(real / target.scale, nan=0.0, posinf=1e9, neginf=-1e9))
    return np.clip(steps + target.zero_point, target.minimum, target.maximum).astype(np.int8)


def scalar_parameters(call: relax.Call) -> tuple[float, int] | None:
    """(scale, zero point) of a quantize or dequantize with one of each, or None."""
    scale, zero_point = call.args[1], call.args[2]
    if not (isinstance(scale, ir.GenericConst) and isinstance(zero_point, ir.GenericConst)):
        return None
    scales, zeros = as_array(scale).ravel(), as_array(zero_point).ravel()
    if len(scales) != 1 or len(zeros) != 1:
        return None
    return float(scales[0]), int(zeros[0])


def permutation(call: relax.Call) -> list[int]:
    """The axes of a ``permute_dims``; no axes means reversed."""
    rank = len(call.args[0].ty.shape.values)
    axes = call.attrs.axes
    return list(range(rank))[::-1] if axes is None else [int(a) % rank for a in axes]


def along_axis(values: np.ndarray, axis: int, rank: int) -> np.ndarray:
    """A vector shaped to broadcast along one axis."""
    shape = [1] * rank
    if rank:
        shape[axis] = -1
    return values.reshape(shape) if len(values) > 1 or rank else values.reshape(())


def number(expression: relax.Expr) -> float:
    """The value of a scalar constant or literal."""
    if isinstance(expression, ir.GenericConst):
        return float(as_array(expression).ravel()[0])
    return float(expression.value)


def _plain(value: Any) -> Any:
    if isinstance(value, np.integer):
        return int(value)
    if isinstance(value, list | tuple):
        return [int(v) for v in value]
    return value
