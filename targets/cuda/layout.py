"""Channels last: what convolutions of half floats want, through whole networks.

Tensor cores read channels of a pixel together. So a value of [N, C, H, W] is kept as
[N, H, W, C] from the first convolution on, through whatever does not mind: element-wise operators,
pooling, reductions, additions. A transposition is written only where something else reads it. A
value of [N, C, W], of one-dimensional convolutions, is an image of height 1.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from tvm import ir, relax

from ...ops.compressed.weights import is_decode
from ...ops.symbolic import extents_of
from ...passes.rewrite import Rewriter, as_array, constant, operator_of, variables

#: TVM's expressions are built by calls that its annotations do not cover.
_relax: Any = relax
_op: Any = relax.op

_TO_LAST, _TO_FIRST = (0, 2, 3, 1), (0, 3, 1, 2)

#: Element by element, of one tensor or of several that are broadcast.
_ELEMENTWISE = frozenset(
    f"relax.{name}"
    for name in (
        "add", "subtract", "multiply", "divide", "power", "maximum", "minimum", "abs", "ceil",
        "floor", "round", "negative", "sign", "square", "sqrt", "rsqrt", "exp", "log", "erf",
        "sin", "cos", "sigmoid", "tanh", "clip", "astype", "nn.relu", "nn.gelu", "nn.gelu_tanh",
        "nn.silu", "nn.leakyrelu", "nn.softplus",
    )
)  # fmt: skip
_POOLING = frozenset(
    f"relax.nn.{name}" for name in ("max_pool2d", "avg_pool2d", "adaptive_avg_pool2d")
)
_REDUCTIONS = frozenset(f"relax.{name}" for name in ("mean", "sum", "max", "min"))


def channels_last(module: ir.IRModule) -> ir.IRModule:
    """The module with its convolutions' data as ``NHWC``; its interface stays."""
    rewriter = Rewriter(module)
    convolutions = ("relax.nn.conv2d", "relax.nn.conv1d")
    if not any(operator_of(value) in convolutions for _, value in rewriter.bindings):
        return module
    changed = _ChannelsLast(rewriter).run()
    for variable, function in module.functions_items():
        if variable.name_hint != "main":
            changed.update_func(variable, function)
    return changed


class _ChannelsLast:
    def __init__(self, rewriter: Rewriter) -> None:
        self.rewriter = rewriter
        #: New expressions [N, H, W, C] of old variables.
        self.last: dict[relax.Var, relax.Expr] = {}
        #: Old variables whose own order is there as well.
        self.first: set[relax.Var] = set()

    def run(self) -> ir.IRModule:
        """The new module."""
        for var, value in self.rewriter.bindings:
            if isinstance(value, relax.Call) and self._moved(var, value):
                continue
            self._write(value)
            self.rewriter.keep(var, value)
        self._write(self.rewriter.function.body.body)
        return self.rewriter.finish()

    def _moved(self, var: relax.Var, call: Any) -> bool:
        """Whether the result was made with channels last."""
        operator = operator_of(call)
        if operator in ("relax.nn.conv2d", "relax.nn.conv1d"):
            return self._convolution(var, call)
        if operator == "relax.permute_dims":
            return self._transposition(var, call)
        if not any(argument in self.last for argument in variables(call)):
            return False
        if operator in _ELEMENTWISE:
            return self._elementwise(var, call)
        if _rounds_whole_tensors(call):
            arguments = [self._last(call.args[0]), *map(self.rewriter.map, call.args[1:])]
            return self._set(var, relax.Call(call.op, arguments, call.attrs, call.ty_args))
        if operator in _POOLING and call.attrs.layout == call.attrs.out_layout == "NCHW":
            options = {"layout": "NHWC", "out_layout": "NHWC"}
            return self._set(var, _again(call, [self._last(call.args[0])], options))
        if operator in _REDUCTIONS:
            return self._reduction(var, call)
        if operator == "relax.concat":
            return self._concatenation(var, call)
        if operator == "relax.nn.pad":
            return self._padding(var, call)
        if operator == "relax.reshape":
            return self._reshape(var, call)
        return False

    def _convolution(self, var: relax.Var, call: Any) -> bool:
        attrs, (x, weight) = call.attrs, call.args
        layouts = (str(attrs.data_layout), str(attrs.kernel_layout), str(attrs.out_layout))
        if layouts == ("NCHW", "OIHW", "NCHW"):
            kernel, window = self.rewriter.map(weight), [list(attrs.strides), list(attrs.padding)]
            apart = list(attrs.dilation)
        elif layouts == ("NCW", "OIW", "NCW"):
            kernel = self._flat_kernel(weight, str(var.name))
            begin, end = (int(n) for n in attrs.padding)
            window = [[1, *attrs.strides], [0, begin, 0, end]]
            apart = [1, *attrs.dilation]
        else:
            return False
        made = _op.nn.conv2d(
            self._last(x), kernel, [int(n) for n in window[0]], [int(n) for n in window[1]],
            [int(n) for n in apart], int(attrs.groups), "NHWC", "OIHW", "NHWC",
        )  # fmt: skip
        return self._set(var, made)

    def _flat_kernel(self, weight: Any, name: str) -> relax.Expr:
        """A weight [O, I, k] as [O, I, 1, k]."""
        if isinstance(weight, ir.GenericConst):
            return constant(as_array(weight)[:, :, None, :])
        outputs, inputs, size = extents_of(weight)
        value: Any = self.rewriter.values.get(weight)
        if operator_of(value) == "relax.reshape" and is_decode(
            self.rewriter.values.get(value.args[0])  # type: ignore[arg-type]
        ):
            weight = value.args[0]  # one reshape, so that it is seen as a stored weight
        shape = (outputs, inputs, 1, size)
        return self.rewriter.emit(_op.reshape(self.rewriter.map(weight), shape), name)

    def _transposition(self, var: relax.Var, call: Any) -> bool:
        """One that only says how a value lies."""
        axes = None if call.attrs.axes is None else tuple(int(a) for a in call.attrs.axes)
        source = call.args[0]
        if axes == _TO_FIRST and isinstance(source, relax.Var) and source not in self.last:
            self.last[var] = self.rewriter.map(source)
            return True
        if axes == _TO_LAST and source in self.last:
            self.rewriter.replace(var, self.last[source])
            return True
        return False

    def _elementwise(self, var: relax.Var, call: Any) -> bool:
        rank = _rank(var)
        arguments: list[relax.Expr] = []
        for argument in call.args:
            if isinstance(argument, ir.GenericConst):
                array = as_array(argument)
                shape = (1,) * (rank - array.ndim) + array.shape
                arguments.append(constant(_array_last(array.reshape(shape))))
            elif isinstance(argument, relax.Var) and _rank(argument) == rank:
                arguments.append(self._last(argument))
            elif not isinstance(argument.ty, relax.TensorType):
                arguments.append(argument)
            else:
                return False
        return self._set(var, relax.Call(call.op, arguments, call.attrs, call.ty_args))

    def _reduction(self, var: relax.Var, call: Any) -> bool:
        if call.attrs.axis is None or _rank(call.args[0]) != 4:
            return False
        axes = sorted(int(axis) % 4 for axis in call.attrs.axis)
        keeps = bool(call.attrs.keepdims)
        if not keeps and axes != [2, 3]:
            return False
        make = getattr(_op, str(call.op.name).removeprefix("relax."))
        moved = [_TO_LAST.index(axis) for axis in axes]
        made = make(self._last(call.args[0]), axis=moved, keepdims=keeps)
        if keeps:
            return self._set(var, made)
        self.rewriter.replace(var, self.rewriter.emit(made, var.name))
        return True

    def _concatenation(self, var: relax.Var, call: Any) -> bool:
        fields = call.args[0].fields if isinstance(call.args[0], relax.Tuple) else []
        if _rank(var) != 4 or not fields:
            return False
        if not all(isinstance(field, relax.Var) for field in fields):
            return False
        axis = _TO_LAST.index(int(call.attrs.axis) % 4)
        return self._set(var, _op.concat([self._last(field) for field in fields], axis))

    def _padding(self, var: relax.Var, call: Any) -> bool:
        attrs = call.attrs
        widths = [int(width) for width in attrs.pad_width]
        if len(widths) != 8:
            return False
        moved = [widths[2 * axis + side] for axis in _TO_LAST for side in (0, 1)]
        x = self._last(call.args[0])
        rest = [self.rewriter.map(argument) for argument in call.args[1:]]
        if rest:
            return False
        return self._set(var, _op.nn.pad(x, moved, attrs.pad_mode, float(attrs.pad_value)))

    def _reshape(self, var: relax.Var, call: Any) -> bool:
        """Where an image is one pixel, its elements' order is the same."""
        source = call.args[0]
        if source not in self.last or tuple(extents_of(source)[2:]) not in ((1, 1), (1,)):
            return False
        made = _op.reshape(self.last[source], call.args[1])
        self.rewriter.replace(var, self.rewriter.emit(made, var.name))
        return True

    def _set(self, var: relax.Var, made: Any) -> bool:
        self.last[var] = self.rewriter.emit(made, var.name)
        return True

    def _last(self, variable: Any) -> relax.Expr:
        """The new expression [N, H, W, C] of a value [N, C, H, W] or [N, C, W]."""
        if variable not in self.last:
            value, name = self.rewriter.map(variable), str(variable.name)
            if _rank(variable) == 3:
                batch, channels, width = extents_of(variable)
                value = self.rewriter.emit(_op.permute_dims(value, [0, 2, 1]), name)
                moved = _op.reshape(value, (batch, 1, width, channels))
            else:
                moved = _op.permute_dims(value, list(_TO_LAST))
            self.last[variable] = self.rewriter.emit(moved, name)
            self.first.add(variable)
        return self.last[variable]

    def _write(self, expression: Any) -> None:
        """Put the variables of an expression in the order that it reads."""
        for variable in variables(expression):
            if variable not in self.last or variable in self.first:
                continue
            value, name = self.last[variable], str(variable.name)
            if _rank(variable) == 3:
                batch, channels, width = extents_of(variable)
                flat = _op.reshape(value, (batch, width, channels))
                moved = _op.permute_dims(self.rewriter.emit(flat, name), [0, 2, 1])
            else:
                moved = _op.permute_dims(value, list(_TO_FIRST))
            self.rewriter.replace(variable, self.rewriter.emit(moved, name))
            self.first.add(variable)


def _rounds_whole_tensors(call: Any) -> bool:
    """Whether a call rounds all elements alike: then their order does not matter."""
    if operator_of(call) != "fewbits.fake_quantize":
        return False
    return len(call.args) > 1 or str(call.attrs["granularity"]) == "tensor"


def _rank(expression: Any) -> int:
    return len(expression.ty.shape.values)


def _array_last(array: np.ndarray) -> np.ndarray:
    """A constant that is broadcast to [N, C, H, W] or [N, C, W], for [N, H, W, C]."""
    if array.ndim == 3:
        array = array[:, :, None, :]
    return np.ascontiguousarray(array.transpose(_TO_LAST)) if array.ndim == 4 else array


def _again(call: Any, arguments: list[Any], changes: dict[str, Any]) -> Any:
    """The same operator on other arguments, with some attributes changed."""
    fields = [field.name for field in type(call.attrs).__tvm_ffi_type_info__.fields]
    options = {field: getattr(call.attrs, field) for field in fields} | changes
    make: Any = getattr(_op.nn, str(call.op.name).removeprefix("relax.nn."))
    return make(*arguments, **options)
