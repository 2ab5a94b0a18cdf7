"""Cancel the transpositions that meet in an integer module.

The integer-only pass puts every channels-last operator between two transpositions. This pass keeps
transpositions lazy: a value is known as "that expression, permuted so", operators that don't mind
the order work on the expression underneath, and a transposition is written out only where someone
needs it. A flatten of a permuted value stays lazy too, until a dense layer permutes the columns of
its constant weights instead.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np
from tvm import ir, relax

from .integer_only.context import permutation
from .rewrite import Rewriter, as_array, constant, operator_of, variables


@dataclasses.dataclass(frozen=True)
class _View:
    """``permute_dims(base, axes)``."""

    base: relax.Expr
    axes: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class _Columns:
    """``base[..., order]``: a flattened permuted value."""

    base: relax.Expr
    order: np.ndarray


#: Operators that act on each element by itself.
_ELEMENTWISE = frozenset({"fewbits.lookup", "relax.quantize", "relax.dequantize", "relax.nn.relu"})
_PAIRWISE = frozenset(
    {"fewbits.add", "fewbits.multiply", "fewbits.divide", "relax.maximum", "relax.minimum"}
)


def channels_last(module: ir.IRModule) -> ir.IRModule:
    """The same module with as few transpositions as this pass can do with."""
    return _ChannelsLast(module).run()


def _shape(expression: relax.Expr) -> list[int]:
    return [int(d) for d in expression.ty.shape.values]


class _ChannelsLast:
    def __init__(self, module: ir.IRModule) -> None:
        self.rewriter = Rewriter(module)
        self.views: dict[relax.Var, _View | _Columns] = {}
        self.written: dict[relax.Var, relax.Expr] = {}
        self.outputs = set(variables(self.rewriter.function.body.body))

    def run(self) -> ir.IRModule:
        for var, value in self.rewriter.bindings:
            operator = operator_of(value)
            if not (isinstance(value, relax.Call) and self._lazily(var, value, operator)):
                self._write_arguments(value)
                self.rewriter.keep(var, value)
        body = self.rewriter.function.body.body
        self._write_arguments(body)
        return self.rewriter.finish()

    # -- lazy rules: each returns False to have the operator kept as it is ------------------

    def _lazily(self, var: relax.Var, call: relax.Call, operator: str | None) -> bool:
        if operator == "relax.permute_dims":
            return self._permute(var, call)
        if operator == "relax.reshape":
            return self._reshape(var, call)
        first = call.args[0]
        view = self.views.get(first) if isinstance(first, relax.Var) else None
        if operator in _ELEMENTWISE and view is not None:
            if operator in ("relax.quantize", "relax.dequantize") and not _per_tensor(call):
                return False
            if operator == "relax.dequantize" and var in self.outputs:
                return False  # the output itself is to be codes, in the order the user knows
            moved = self.rewriter.emit(
                relax.Call(
                    call.op,
                    [view.base, *(self.rewriter.map(a) for a in call.args[1:])],
                    call.attrs,
                    call.ty_args,
                ),
                var.name,
            )
            self.views[var] = dataclasses.replace(view, base=moved)
            return True
        if operator in _PAIRWISE:
            return self._pair(var, call)
        if operator == "relax.concat":
            return self._concat(var, call)
        if operator == "relax.nn.pad" and isinstance(view, _View):
            return self._pad(var, call, view)
        if operator == "relax.strided_slice" and isinstance(view, _View):
            return self._slice(var, call, view)
        if operator == "relax.image.resize2d" and isinstance(view, _View):
            return self._resize(var, call, view)
        if operator == "fewbits.dense" and isinstance(view, _Columns):
            return self._dense(var, call, view)
        return False

    def _permute(self, var: relax.Var, call: relax.Call) -> bool:
        axes = permutation(call)
        source = call.args[0]
        view = self.views.get(source) if isinstance(source, relax.Var) else None
        if isinstance(view, _Columns):
            return False
        base = self.rewriter.map(source) if view is None else view.base
        inner = tuple(range(len(axes))) if view is None else view.axes
        self._set(var, _View(base, tuple(inner[a] for a in axes)))
        return True

    def _set(self, var: relax.Var, view: _View) -> None:
        shape = _shape(view.base)
        if view.axes == tuple(range(len(view.axes))):
            self.rewriter.replace(var, view.base)
        elif _moves_only_ones(shape, view.axes):
            new = [shape[a] for a in view.axes]
            name = f"{var.name}:shape"
            self.rewriter.replace(var, self.rewriter.emit(relax.op.reshape(view.base, new), name))
        else:
            self.views[var] = view

    def _reshape(self, var: relax.Var, call: relax.Call) -> bool:
        """Flattening all but the leading axis of a permuted value: columns in another order."""
        source = call.args[0]
        view = self.views.get(source) if isinstance(source, relax.Var) else None
        if not isinstance(view, _View) or view.axes[0] != 0:
            return False
        old, new = _shape(source), _shape(var)
        base = _shape(view.base)
        columns = math.prod(old[1:])
        if new[-1] != columns or math.prod(new[:-1]) != old[0]:
            return False
        index = np.arange(columns).reshape(base[1:])
        order = index.transpose([a - 1 for a in view.axes[1:]]).ravel()
        flat = self.rewriter.emit(relax.op.reshape(view.base, new), f"{var.name}:flat")
        if (order == np.arange(columns)).all():
            self.rewriter.replace(var, flat)
        else:
            self.views[var] = _Columns(flat, order)
        return True

    def _pair(self, var: relax.Var, call: relax.Call) -> bool:
        operands = call.args[:2]  # a quotient has a table as well
        views = [self.views.get(a) if isinstance(a, relax.Var) else None for a in operands]
        known = [v for v in views if isinstance(v, _View)]
        if not known or any(isinstance(v, _Columns) for v in views):
            return False
        axes = known[0].axes
        if len(axes) != len(_shape(var)):
            return False
        bases: list[relax.Expr] = []
        for argument, view in zip(operands, views, strict=True):
            if isinstance(view, _View) and view.axes == axes:
                bases.append(view.base)
            elif isinstance(argument, ir.GenericConst):
                array = as_array(argument)
                array = array.reshape([1] * (len(axes) - array.ndim) + list(array.shape))
                bases.append(constant(array.transpose(_inverse(axes))))
            elif _shape(argument) == _shape(var):
                # One transposition here saves the one after.
                whole = self._write(argument)
                name = f"{var.name}:operand"
                bases.append(self.rewriter.emit(relax.op.permute_dims(whole, _inverse(axes)), name))
            else:
                return False
        moved = relax.Call(call.op, [*bases, *call.args[2:]], call.attrs, call.ty_args)
        self.views[var] = _View(self.rewriter.emit(moved, var.name), axes)
        return True

    def _concat(self, var: relax.Var, call: relax.Call) -> bool:
        fields = call.args[0].fields if isinstance(call.args[0], relax.Tuple) else []
        views = [self.views.get(f) if isinstance(f, relax.Var) else None for f in fields]
        if not views or not isinstance(views[0], _View):
            return False
        axes = views[0].axes
        bases: list[relax.Expr] = []
        for view in views:
            if not isinstance(view, _View) or view.axes != axes:
                return False
            bases.append(view.base)
        axis = axes[int(call.attrs.axis) % len(axes)]
        moved = self.rewriter.emit(relax.op.concat(bases, axis), var.name)
        self.views[var] = _View(moved, axes)
        return True

    def _pad(self, var: relax.Var, call: relax.Call, view: _View) -> bool:
        attrs = call.attrs
        pairs = [int(w) for w in attrs.pad_width]
        widths = [0] * len(pairs)
        for position, axis in enumerate(view.axes):
            widths[2 * axis : 2 * axis + 2] = pairs[2 * position : 2 * position + 2]
        padded = relax.op.nn.pad(view.base, widths, attrs.pad_mode, float(attrs.pad_value))
        self.views[var] = _View(self.rewriter.emit(padded, var.name), view.axes)
        return True

    def _slice(self, var: relax.Var, call: relax.Call, view: _View) -> bool:
        lists = [[int(v) for v in argument.fields] for argument in call.args[1:]]
        axes = [view.axes[a % len(view.axes)] for a in lists[0]]
        sliced = relax.op.strided_slice(
            view.base,
            axes,
            *lists[1:],
            assume_inbound=bool(call.attrs.assume_inbound),
        )
        self.views[var] = _View(self.rewriter.emit(sliced, var.name), view.axes)
        return True

    def _resize(self, var: relax.Var, call: relax.Call, view: _View) -> bool:
        attrs = call.attrs
        if attrs.layout != "NCHW" or view.axes != (0, 3, 1, 2):
            return False
        resized = relax.op.image.resize2d(
            view.base,
            call.args[1],
            layout="NHWC",
            method=attrs.method,
            coordinate_transformation_mode=attrs.coordinate_transformation_mode,
            rounding_method=attrs.rounding_method,
        )
        self.views[var] = _View(self.rewriter.emit(resized, var.name), view.axes)
        return True

    def _dense(self, var: relax.Var, call: relax.Call, view: _Columns) -> bool:
        weights = as_array(call.args[1])
        moved = np.empty_like(weights)
        moved[:, view.order] = weights
        arguments = [view.base, constant(moved), *call.args[2:]]
        self.rewriter.replace(
            var, self.rewriter.emit(relax.Call(call.op, arguments, call.attrs), var.name)
        )
        return True

    # -- writing transpositions out -----------------------------------------------------------

    def _write(self, variable: relax.Expr) -> relax.Expr:
        """The new expression of a value in its own order, written out if it was lazy."""
        if not isinstance(variable, relax.Var) or variable not in self.views:
            return self.rewriter.map(variable)
        if variable not in self.written:
            view = self.views[variable]
            if isinstance(view, _View):
                moved = relax.op.permute_dims(view.base, list(view.axes))
            else:
                order = constant(view.order.astype(np.int64))
                moved = relax.op.take(view.base, order, axis=len(_shape(view.base)) - 1)
            self.written[variable] = self.rewriter.emit(moved, f"{variable.name}:order")
            self.rewriter.replace(variable, self.written[variable])
        return self.written[variable]

    def _write_arguments(self, expression: relax.Expr) -> None:
        if isinstance(expression, relax.Var):
            self._write(expression)
        elif isinstance(expression, relax.Tuple):
            for field in expression.fields:
                self._write_arguments(field)
        elif isinstance(expression, relax.TupleGetItem):
            self._write_arguments(expression.tuple_value)
        elif isinstance(expression, relax.Call):
            for argument in expression.args:
                self._write_arguments(argument)


def _per_tensor(call: relax.Call) -> bool:
    return all(
        isinstance(a, ir.GenericConst) and math.prod(a.value.shape) == 1 for a in call.args[1:3]
    )


def _inverse(axes: tuple[int, ...]) -> list[int]:
    return [axes.index(i) for i in range(len(axes))]


def _moves_only_ones(shape: list[int], axes: tuple[int, ...]) -> bool:
    """Whether a transposition leaves the order of elements alone: it moves only axes of size 1."""
    kept = [a for a in axes if shape[a] != 1]
    return kept == sorted(kept)
