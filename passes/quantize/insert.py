"""Carry a quantization plan out: quantize/dequantize around values, int8 weights, int32 biases."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np
from tvm import ir, relax

from ...formats.affine import AffineFormat, AffineParameters
from ..rewrite import Rewriter, as_array, constant, operator_of
from .operators import ANCHORS, ARITHMETIC
from .plan import Plan, channel_axis, weight_axis

#: Requantization factors (input scale * weight scale / output scale) are kept above this, and
#: biases below 2^29 accumulator steps, by making a channel's weight scale coarser: its weights are
#: then negligible beside its bias or its output range.
SMALLEST_FACTOR = 2.0**-22
LARGEST_BIAS = 2.0**29


@dataclasses.dataclass(frozen=True)
class Grids:
    """What weights and activations are rounded to.

    Attributes:
        weights: the weights' grid.
        activations: the activations' grid, of 8 or 16 bits.
        per_channel: one weight scale per output channel rather than one per tensor.
        weight_observer: ``"minmax"`` or ``"mse"``; for symmetric weights.
        power_of_two: scales are powers of two.
    """

    weights: AffineFormat
    activations: AffineFormat
    per_channel: bool = True
    weight_observer: str = "minmax"
    power_of_two: bool = False


def insert_qdq(
    module: ir.IRModule, plan: Plan, parameters: Mapping[str, AffineParameters], grids: Grids
) -> ir.IRModule:
    """The module in QDQ form.

    Args:
        module: the float module that the plan was made for.
        plan: which values to quantize.
        parameters: scale and zero point by name, for every name in ``plan.quantized``.
        grids: of weights and activations.
    """
    return _Insertion(module, plan, parameters, grids).run()


def power_of_two(scale: np.ndarray) -> np.ndarray:
    """The next power of two that is not below, float32: nothing clips that did not before."""
    mantissa, exponent = np.frexp(scale.astype(np.float32))
    return np.ldexp(np.float32(1.0), np.where(mantissa == 0.5, exponent - 1, exponent)).astype(
        np.float32
    )


class _Insertion:
    def __init__(
        self,
        module: ir.IRModule,
        plan: Plan,
        parameters: Mapping[str, AffineParameters],
        grids: Grids,
    ) -> None:
        self.rewriter = Rewriter(module)
        self.plan = plan
        self.parameters = parameters
        self.grids = grids
        self.weights = grids.weights
        self.dtype = "int8" if grids.activations.bits <= 8 else "int16"
        self.quantized = set(plan.quantized)
        self.input_of: dict[relax.Var, AffineParameters] = {}
        self.bias_scale: dict[relax.Var, np.ndarray] = {}

    def run(self) -> ir.IRModule:
        rewriter = self.rewriter
        for parameter in rewriter.parameters:
            if parameter.name in self.quantized:
                self._wrap(parameter, parameter)
        for var, value in rewriter.bindings:
            new: relax.Expr = value
            operator = operator_of(value)
            if isinstance(value, relax.Call):
                if operator in ANCHORS and var.name in self.plan.anchors:
                    new = self._anchor(var, value)
                elif operator == "relax.add" and (bias := self._bias(var, value)) is not None:
                    new = bias
                elif operator in ARITHMETIC and var.name not in self.plan.floats:
                    new = self._arithmetic(var, value)
                elif operator == "relax.take" and var.name in self.quantized:
                    new = self._table(var, value)
            kept = rewriter.keep(var, new)
            if var.name in self.quantized:
                self._wrap(var, kept)
        return rewriter.finish()

    def _wrap(self, old: relax.Var, value: relax.Expr) -> None:
        """Let the users of `old` see it through int8."""
        chosen = self.parameters[old.name]
        scale = constant(np.float32(chosen.scale))
        zero_point = constant(np.dtype(self.dtype).type(chosen.zero_point))
        codes = self.rewriter.emit(
            relax.op.quantize(value, scale, zero_point, axis=-1, out_dtype=self.dtype),
            f"{old.name}:q",
        )
        real = self.rewriter.emit(
            relax.op.dequantize(codes, scale, zero_point, axis=-1, out_dtype="float32"),
            f"{old.name}:dq",
        )
        self.rewriter.replace(old, real)

    def _anchor(self, var: relax.Var, call: relax.Call) -> relax.Expr:
        if not isinstance(call.args[1], ir.GenericConst):
            return self._left_constant(var, call)
        array = as_array(call.args[1]).astype(np.float32)
        source = call.args[0]
        if not isinstance(source, relax.Var) or source.name not in self.quantized:
            return call
        axis = weight_axis(call)
        data = self.parameters[source.name]
        bias = self._bias_constant(var)
        output = self.plan.anchors[var.name]
        scale, zero = self._weight_parameters(array, axis, data, bias, output)
        self.bias_scale[var] = (scale * np.float64(data.scale)).astype(np.float32)
        shape = [1] * array.ndim
        shape[axis] = -1
        codes = self.weights.encode(array, scale.reshape(shape), zero.reshape(shape))
        real = self.rewriter.emit(
            relax.op.dequantize(
                constant(codes),
                constant(scale),
                constant(zero),
                axis=axis,
                out_dtype="float32",
            ),
            f"{var.name}:weight",
        )
        return relax.Call(call.op, [call.args[0], real], call.attrs, call.ty_args)

    def _table(self, var: relax.Var, call: relax.Call) -> relax.Call:
        """Rows taken from a constant (an embedding): the constant becomes the result's codes."""
        table, chosen = call.args[0], self.parameters[var.name]
        if not isinstance(table, ir.GenericConst):
            return call
        scale = np.float32(chosen.scale)
        real = self.rewriter.emit(
            relax.op.dequantize(
                constant(AffineFormat().encode(as_array(table), scale, chosen.zero_point)),
                constant(scale),
                constant(np.int8(chosen.zero_point)),
                axis=-1,
                out_dtype="float32",
            ),
            f"{var.name}:table",
        )
        return relax.Call(call.op, [real, *call.args[1:]], call.attrs, call.ty_args)

    def _left_constant(self, var: relax.Var, call: relax.Call) -> relax.Call:
        """A matrix product whose first factor is constant: it becomes int8, with one scale."""
        left, right = call.args
        if not isinstance(left, ir.GenericConst) or right.name not in self.quantized:
            return call
        array = as_array(left).astype(np.float32)
        scale = np.float32(np.abs(array).max(initial=0) / self.weights.maximum or 1.0)
        real = self.rewriter.emit(
            relax.op.dequantize(
                constant(self.weights.encode(array, scale, 0)),
                constant(scale),
                constant(np.int8(0)),
                axis=-1,
                out_dtype="float32",
            ),
            f"{var.name}:weight",
        )
        return relax.Call(call.op, [real, right], call.attrs, call.ty_args)

    def _bias_constant(self, var: relax.Var) -> np.ndarray | None:
        """The constant that is added to a layer before anything else happens to it."""
        if var.name in self.quantized:
            return None
        for _, value in self.rewriter.bindings:
            if operator_of(value) == "relax.add" and any(a is var for a in value.args):
                return next((as_array(a) for a in value.args if _is_constant(a)), None)
        return None

    def _weight_parameters(
        self,
        array: np.ndarray,
        axis: int,
        data: AffineParameters,
        bias: np.ndarray | None,
        output: str,
    ) -> tuple[np.ndarray, np.ndarray]:
        """float32 scale and int8 zero point per output channel."""
        channels = array.shape[axis]
        rows = np.moveaxis(array, axis, 0).reshape(channels, -1).astype(np.float64)
        if not self.grids.per_channel:
            rows = rows.reshape(1, -1)
        low, high = rows.min(1, initial=0.0), rows.max(1, initial=0.0)
        if self.weights.symmetric:
            scale = np.maximum(-low, high) / self.weights.maximum
            if self.grids.weight_observer == "mse":
                scale = _least_squares_scale(rows, scale, self.weights)
        else:
            scale = (high - low) / (self.weights.maximum - self.weights.minimum)
        scale = np.broadcast_to(scale, (channels,)).copy()
        out = self.parameters.get(output)
        if out is not None:
            scale = np.maximum(scale, SMALLEST_FACTOR * out.scale / data.scale)
        if bias is not None:
            offset = np.broadcast_to(np.abs(bias.astype(np.float64)).ravel(), (channels,))
            scale = np.maximum(scale, offset / (LARGEST_BIAS * data.scale))
        scale[scale == 0] = 1.0
        scale = scale.astype(np.float32)
        if self.grids.power_of_two:
            scale = power_of_two(scale)
        zero = np.zeros(channels, np.int8)
        if not self.weights.symmetric:
            steps = np.rint(self.weights.minimum - low / scale.astype(np.float64))
            zero = np.clip(steps, self.weights.minimum, self.weights.maximum).astype(np.int8)
        return scale, np.broadcast_to(zero, (channels,)).copy()

    def _bias(self, var: relax.Var, call: relax.Call) -> relax.Expr | None:
        """``anchor + constant`` with the constant as int32 in accumulator steps."""
        anchor = next((a for a in call.args if isinstance(a, relax.Var)), None)
        other = next((a for a in call.args if isinstance(a, ir.GenericConst)), None)
        if anchor is None or other is None or anchor not in self.bias_scale:
            return None
        if anchor.name in self.quantized:  # quantized before the addition: not a fused bias
            return None
        scale = self.bias_scale[anchor]
        array = as_array(other).astype(np.float64)
        value = self.rewriter.values[anchor]
        rank, axis = len(value.ty.shape.values), channel_axis(value)
        # As few leading axes as the constant had, but always the channels'.
        dropped = rank - max(array.ndim, rank - axis)
        shape = [1] * (rank - dropped)
        axis -= dropped
        shape[axis] = len(scale)
        full = np.broadcast_to(array, shape)
        codes = np.rint(full / scale.astype(np.float64).reshape(shape))
        codes = np.clip(codes, -(2**31) + 1, 2**31 - 1).astype(np.int32)
        real = self.rewriter.emit(
            relax.op.dequantize(
                constant(codes),
                constant(scale),
                constant(np.zeros(len(scale), np.int32)),
                axis=axis,
                out_dtype="float32",
            ),
            f"{anchor.name}:bias",
        )
        arguments = [real if isinstance(a, ir.GenericConst) else a for a in call.args]
        return relax.Call(call.op, arguments, call.attrs, call.ty_args)

    def _arithmetic(self, var: relax.Var, call: relax.Call) -> relax.Expr:
        """A constant operand of an addition or product becomes int8 as well."""
        if var.name not in self.quantized:
            return call
        arguments: list[relax.Expr] = []
        for argument in call.args:
            if isinstance(argument, ir.GenericConst) and int(np.prod(argument.value.shape)) > 1:
                array = as_array(argument).astype(np.float32)
                chosen = AffineFormat().parameters(float(array.min()), float(array.max()))
                codes = AffineFormat().encode(array, np.float32(chosen.scale), chosen.zero_point)
                argument = self.rewriter.emit(
                    relax.op.dequantize(
                        constant(codes),
                        constant(np.float32(chosen.scale)),
                        constant(np.int8(chosen.zero_point)),
                        axis=-1,
                        out_dtype="float32",
                    ),
                    f"{var.name}:operand",
                )
            arguments.append(argument)
        return relax.Call(call.op, arguments, call.attrs, call.ty_args)


def _is_constant(expression: relax.Expr) -> bool:
    return isinstance(expression, ir.GenericConst)


def _least_squares_scale(rows: np.ndarray, scale: np.ndarray, grid: AffineFormat) -> np.ndarray:
    """Per row, the shrunken scale with the least squared error (spec 8: search in steps of 1 %)."""
    best, least = scale.copy(), np.full(len(rows), np.inf)
    for step in range(60):
        candidate = scale * (1.0 - 0.01 * step)
        safe = np.where(candidate > 0, candidate, 1.0)[:, None]
        back = np.clip(np.rint(rows / safe), grid.minimum, grid.maximum) * safe
        error = ((rows - back) ** 2).sum(1)
        better = error < least
        best[better], least[better] = candidate[better], error[better]
    return best
