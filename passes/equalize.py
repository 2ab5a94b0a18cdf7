"""Cross-layer equalization (Nagel et al. 2019): even ranges of channels, by exact rescaling.

A ReLU, a pooling, a reshape pass a positive factor on: ``f(s x) = s f(x)``. So what one layer's
output channel is divided by can be multiplied into the next layer's weights for that channel, and
the network computes the same. The factor ``sqrt(r1 / r2)`` makes the channel's weights equally
large in both layers, so that neither they nor the activation between them need a range that most
channels don't use.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from tvm import ir, relax

from .base import Pass, PassContext, register_pass
from .quantize.plan import matches
from .rewrite import Rewriter, as_array, constant, operator_of, variables

#: Positively homogeneous functions of one element, and pools over axes that follow the channels.
_ELEMENTWISE = frozenset({"relax.nn.relu", "relax.nn.leakyrelu"})
_POOLS = frozenset(
    f"relax.nn.{kind}_pool{rank}d"
    for kind in ("max", "avg", "adaptive_avg", "adaptive_max")
    for rank in (1, 2)
)
_CONVOLUTIONS = frozenset({"relax.nn.conv2d", "relax.nn.conv1d"})
#: Factors below 1/LIMIT or above LIMIT would only serve channels that hardly exist.
_LIMIT = 1e4


@register_pass
@dataclasses.dataclass(frozen=True)
class Equalize(Pass):
    """Rescale channels between layers until their weights are equally large on both sides.

    Attributes:
        iterations: how often all pairs of layers are gone through.
        ignore: layers whose weights stay as they are, by name, wildcard, ``re:`` or operator.
    """

    name: ClassVar[str] = "equalize"
    keeps_symbols: ClassVar[bool] = False

    iterations: int = 20
    ignore: tuple[str, ...] = ()

    def apply(self, module: ir.IRModule, context: PassContext) -> ir.IRModule:
        """A module that computes the same; weights and biases differ."""
        rewriter = Rewriter(module)
        layers = _layers(rewriter, self.ignore)
        pairs = _pairs(rewriter, layers)
        if not pairs:
            return module
        for _ in range(self.iterations):
            if not any([_balance(pair) for pair in pairs]):
                break
        context.note(self.name, None, f"{len(pairs)} pairs of layers equalized", pairs=len(pairs))
        return _rebuilt(rewriter, layers)


@dataclasses.dataclass
class _Layer:
    """A convolution or dense layer with constant weights, and its bias if it has one.

    `weights` are [groups, outputs per group, inputs per group, window], float64; `trailing` is how
    many axes of the result follow the channels.
    """

    var: relax.Var
    weights: np.ndarray
    trailing: int
    bias_var: relax.Var | None = None
    bias: np.ndarray | None = None

    def output_ranges(self) -> np.ndarray:
        """Largest weight of each output channel."""
        return np.abs(self.weights).max(axis=(2, 3)).ravel()

    def input_ranges(self) -> np.ndarray:
        """Largest weight that meets each input channel."""
        return np.abs(self.weights).max(axis=(1, 3)).ravel()

    def divide_outputs(self, factors: np.ndarray) -> None:
        """Make the layer's result smaller, channel by channel."""
        groups, outputs = self.weights.shape[:2]
        self.weights = self.weights / factors.reshape(groups, outputs, 1, 1)
        if self.bias is not None:
            self.bias = self.bias / factors

    def multiply_inputs(self, factors: np.ndarray) -> None:
        """Make up for a smaller input."""
        groups, _, inputs, _ = self.weights.shape
        self.weights = self.weights * factors.reshape(groups, 1, inputs, 1)


@dataclasses.dataclass(frozen=True)
class _Pair:
    """Two layers with nothing but homogeneous operators between them.

    `repeat` inputs of the second in a row come from one channel of the first.
    """

    first: _Layer
    second: _Layer
    repeat: int


def _balance(pair: _Pair) -> bool:
    """Equalize one pair; whether that changed anything noticeably."""
    before = pair.first.output_ranges()
    after = pair.second.input_ranges().reshape(-1, pair.repeat).max(1)
    alive = (before > 0) & (after > 0)
    factors = np.ones_like(before)
    factors[alive] = np.sqrt(before[alive] / after[alive])
    factors = np.clip(factors, 1.0 / _LIMIT, _LIMIT)
    pair.first.divide_outputs(factors)
    pair.second.multiply_inputs(np.repeat(factors, pair.repeat))
    return bool(np.abs(np.log(factors)).max() > 1e-3)


def _layers(rewriter: Rewriter, ignore: Sequence[str]) -> dict[relax.Var, _Layer]:
    layers: dict[relax.Var, _Layer] = {}
    for var, value in rewriter.bindings:
        operator = operator_of(value)
        if operator not in _CONVOLUTIONS | {"relax.matmul"} or matches(ignore, var.name, operator):
            continue
        assert isinstance(value, relax.Call)
        if not isinstance(value.args[1], ir.GenericConst) or var.ty.dtype != "float32":
            continue
        array = as_array(value.args[1]).astype(np.float64)
        if operator == "relax.matmul":
            if array.ndim == 2:
                layers[var] = _Layer(var, array.T[None, :, :, None], 0)
        else:
            groups = int(value.attrs.groups)
            shape = (groups, array.shape[0] // groups, array.shape[1], -1)
            layers[var] = _Layer(var, array.reshape(shape), array.ndim - 2)
    return layers


def _pairs(rewriter: Rewriter, layers: dict[relax.Var, _Layer]) -> list[_Pair]:
    users: dict[relax.Var, list[relax.Var]] = {}
    for var, value in rewriter.bindings:
        for used in variables(value):
            users.setdefault(used, []).append(var)
    kept = set(variables(rewriter.function.body.body))
    pairs = []
    for layer in layers.values():
        var = layer.var
        axis = len(_shape(var)) - 1 - layer.trailing
        channels, repeat = _shape(var)[axis], 1
        while var not in kept and len(users.get(var, ())) == 1:
            user = users[var][0]
            call = rewriter.values[user]
            if not isinstance(call, relax.Call):
                break
            if user in layers:
                second = layers[user]
                if call.args[0] == var and axis == len(_shape(var)) - 1 - second.trailing:
                    pairs.append(_Pair(layer, second, repeat))
                break
            bias = _bias(call, var, axis, channels) if layer.bias_var is None else None
            if bias is not None and var is layer.var:
                layer.bias_var, layer.bias = user, bias
            else:
                step = _passed(call, axis)
                if step is None:
                    break
                axis, more = step
                repeat *= more
            var = user
    return pairs


def _shape(expression: Any) -> list[int]:
    return [int(d) for d in expression.ty.shape.values]


def _bias(call: relax.Call, var: relax.Var, axis: int, channels: int) -> np.ndarray | None:
    """The constant added, one value per channel; None if this is something else."""
    if operator_of(call) != "relax.add" or _shape(call) != _shape(var):
        return None
    other = call.args[1] if call.args[0] == var else call.args[0]
    if not isinstance(other, ir.GenericConst):
        return None
    array = as_array(other).astype(np.float64)
    padded = array.reshape([1] * (len(_shape(var)) - array.ndim) + list(array.shape))
    if any(size != 1 for i, size in enumerate(padded.shape) if i != axis):
        return None
    return np.broadcast_to(padded.ravel(), (channels,)).copy()


def _passed(call: relax.Call, axis: int) -> tuple[int, int] | None:
    """Where the channels' axis is after an operator that passes factors on, and how many elements
    in a row now belong to one channel; None for any other operator."""
    operator = operator_of(call)
    if not all(isinstance(e.ty, relax.TensorType) for e in (call, *call.args[:1])):
        return None  # tuples: concat, split
    before, after = _shape(call.args[0]), _shape(call)
    if operator in _ELEMENTWISE or (operator in _POOLS and axis == 1):
        return axis, 1
    if operator == "relax.mean":
        axes = [int(a) % len(before) for a in (call.attrs["axis"] or range(len(before)))]
        if axis in axes:
            return None
        return (axis if call.attrs["keepdims"] else axis - sum(a < axis for a in axes)), 1
    if operator == "relax.permute_dims" and call.attrs.axes is not None:
        return [int(a) % len(before) for a in call.attrs.axes].index(axis), 1
    if operator in ("relax.reshape", "relax.flatten", "relax.squeeze"):
        inner = int(np.prod(before[axis + 1 :]))
        outer, position = int(np.prod(before[:axis])), 0
        while position < len(after) and int(np.prod(after[:position])) != outer:
            position += 1
        while position < len(after) - 1 and after[position] == 1 != before[axis]:
            position += 1
        if position == len(after) or int(np.prod(after[:position])) != outer:
            return None
        if after[position] == before[axis]:
            return position, 1
        if after[position] == before[axis] * inner:
            return position, inner
    return None


def _rebuilt(rewriter: Rewriter, layers: dict[relax.Var, _Layer]) -> ir.IRModule:
    biases = {layer.bias_var: layer for layer in layers.values() if layer.bias_var is not None}
    for var, value in rewriter.bindings:
        new: relax.Expr = value
        if isinstance(value, relax.Call):
            arguments = list(value.args)
            if var in layers:
                old = as_array(arguments[1])
                weights = layers[var].weights
                if operator_of(value) == "relax.matmul":
                    weights = weights[0, :, :, 0].T
                arguments[1] = constant(weights.reshape(old.shape).astype(np.float32))
                new = relax.Call(value.op, arguments, value.attrs, value.ty_args)
            elif var in biases:
                at = next(i for i, a in enumerate(arguments) if isinstance(a, ir.GenericConst))
                arguments[at] = constant(_broadcast(biases[var], as_array(arguments[at])))
                new = relax.Call(value.op, arguments, value.attrs, value.ty_args)
        rewriter.keep(var, new)
    return rewriter.finish()


def _broadcast(layer: _Layer, old: np.ndarray) -> np.ndarray:
    """The layer's bias in the shape of the old one, or wider where that was one for all."""
    assert layer.bias is not None
    bias = layer.bias.astype(np.float32)
    if old.size == bias.size:
        return bias.reshape(old.shape)
    return bias.reshape(-1, *[1] * layer.trailing)
