"""Cancel transpositions that meet, as exporters from channels-last frameworks leave them.

Every transposition is carried down lazily, "that value, permuted so", through operators that don't
mind the order, and written out only where someone needs it. The result is taken when it moves fewer
elements than before.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any, ClassVar

import numpy as np
from tvm import ir, relax

from ...ops.meanings.common import ints
from ...ops.symbolic import equal, evaluate, symbols
from ..base import Pass, PassContext, register_pass
from ..rewrite import constant, operator_of
from . import families
from .graph import Graph, array_of, axes_of, keeps_order, op, rewrite, shape_of, with_attributes

#: Stands for every symbolic dimension where amounts are compared.
_TYPICAL = 16


@register_pass
@dataclasses.dataclass(frozen=True)
class CancelTransposes(Pass):
    """Move transpositions together until they cancel."""

    name: ClassVar[str] = "cancel-transposes"

    def apply(self, module: ir.IRModule, context: PassContext) -> ir.IRModule:
        """The module with less to transpose; the same object if nothing is gained."""
        module = rewrite(module, {"relax.matmul": (_permute_rows,)})
        before = elements_moved(module)
        if before == 0:
            return module
        sunk = _Sinker(module).run()
        return sunk if elements_moved(sunk) < before else module


def elements_moved(module: ir.IRModule) -> int:
    """How many elements the module's transpositions move."""
    bindings = [b for block in module["main"].body.blocks for b in block.bindings]
    calls = [b.value for b in bindings if operator_of(b.value) == "relax.permute_dims"]
    moving = [call for call in calls if not keeps_order(call)]
    return sum(math.prod(map(_typical, shape_of(call))) for call in moving)


def _typical(extent: Any) -> int:
    """A size, with some number in the place of symbolic dimensions."""
    return evaluate(extent, dict.fromkeys(symbols([extent]), _TYPICAL))


def _inverse(axes: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(axes.index(axis) for axis in range(len(axes)))


def _permute_rows(graph: Graph, _var: Any, call: Any) -> relax.Expr | None:
    """A dense layer on a flattened transposed value: its weights' rows are transposed instead."""
    flat = graph.call(call.args[0], "relax.reshape")
    moved = graph.call(flat.args[0], "relax.permute_dims") if flat is not None else None
    if moved is None:
        return None
    axes, shape = axes_of(moved), shape_of(moved.args[0])
    new = shape_of(call.args[0])
    rows = math.prod(shape[1:])
    if axes[0] != 0 or new[-1] != rows or not equal(math.prod(new[:-1]), shape[0]):
        return None
    order = np.arange(rows).reshape(shape[1:]).transpose([axis - 1 for axis in axes[1:]]).ravel()
    weight = _take_rows(graph, call.args[1], np.argsort(order))
    if weight is None:
        return None
    return with_attributes(call, [op.reshape(moved.args[0], new), weight])


def _take_rows(graph: Graph, weight: Any, order: np.ndarray) -> relax.Expr | None:
    """A constant matrix (or the dequantize of one) with its rows in another order."""
    array = array_of(weight)
    if array is not None:
        return constant(array[order]) if array.ndim == 2 else None
    call = graph.call(weight, "relax.dequantize")
    codes = array_of(call.args[0]) if call is not None else None
    if call is None or codes is None or codes.ndim != 2:
        return None
    if math.prod(shape_of(call.args[1])) > 1 and int(call.attrs.axis) % 2 == 0:
        return None
    return with_attributes(call, [constant(codes[order]), *call.args[1:]])


@dataclasses.dataclass(frozen=True)
class _View:
    """``permute_dims(base, axes)`` (of every part, when base is a tuple)."""

    base: relax.Expr
    axes: tuple[int, ...]


class _Sinker:
    """Carries transpositions down; one method per family of operators."""

    def __init__(self, module: ir.IRModule) -> None:
        self.graph = Graph(module)
        self.views: dict[relax.Expr, _View] = {}
        self.written: set[relax.Var] = set()

    def run(self) -> ir.IRModule:
        for var, value in self.graph.bindings:
            view = self._view(var, value)
            if view is None:
                self._write_arguments(value)
                self.graph.keep(var, value)
            elif view.axes == tuple(range(len(view.axes))):
                self.graph.replace(var, view.base)
            else:
                self.views[var] = view
        body: Any = self.graph.function.body
        self._write_arguments(body.body)
        return self.graph.finish()

    def _write_arguments(self, expression: Any) -> None:
        """Write out the transpositions that an expression needs."""
        if isinstance(expression, relax.Var):
            view = self.views.get(expression)
            if view is not None and expression not in self.written:
                self.written.add(expression)
                call = op.permute_dims(view.base, list(view.axes))
                self.graph.replace(expression, self.graph.emit(call, expression.name))
        elif isinstance(expression, relax.Tuple):
            for field in expression.fields:
                self._write_arguments(field)
        elif isinstance(expression, relax.TupleGetItem):
            self._write_arguments(expression.tuple_value)
        elif isinstance(expression, relax.Call):
            for argument in expression.args:
                self._write_arguments(argument)

    def _view(self, var: relax.Var, value: Any) -> _View | None:
        """What a binding is when its arguments are views, or None to have them written out."""
        if isinstance(value, relax.TupleGetItem):
            view = self.views.get(value.tuple_value)
            if view is None:
                return None
            part = self.graph.emit(relax.TupleGetItem(view.base, value.index), var.name)
            return _View(part, view.axes)
        name = operator_of(value)
        if name == "relax.permute_dims":
            inner = self.views.get(value.args[0])
            axes = axes_of(value)
            if inner is None:
                return _View(self.graph.map(value.args[0]), axes)
            return _View(inner.base, tuple(inner.axes[axis] for axis in axes))
        if name is None or not value.args:
            return None
        if name in families.JOINT:
            return self._joint(var, value)
        if name == "relax.concat":
            return self._concat(var, value)
        view = self.views.get(value.args[0])
        if view is None:
            return None
        if name in families.REDUCTIONS:
            return self._reduce(var, value, view)
        rule = _RULES.get(name)
        call = rule(value, view) if rule is not None else None
        if name == "relax.reshape":
            return self._reshape(var, view)
        return None if call is None else _View(self.graph.emit(call, var.name), view.axes)

    def _joint(self, var: relax.Var, call: Any) -> _View | None:
        views = [self.views[argument] for argument in call.args if argument in self.views]
        rank = len(shape_of(var))
        if not views or any(view.axes != views[0].axes for view in views):
            return None
        axes = views[0].axes
        if len(axes) != rank:
            return None
        bases: list[relax.Expr] = []
        for argument in call.args:
            array = array_of(argument)
            if argument in self.views:
                bases.append(self.views[argument].base)
            elif array is not None:
                whole = array.reshape((1,) * (rank - array.ndim) + array.shape)
                bases.append(constant(whole.transpose(_inverse(axes))) if array.ndim else argument)
            else:
                return None
        moved = relax.Call(call.op, bases, call.attrs, call.ty_args)
        return _View(self.graph.emit(moved, var.name), axes)

    def _concat(self, var: relax.Var, call: Any) -> _View | None:
        fields = call.args[0].fields if isinstance(call.args[0], relax.Tuple) else []
        views = [self.views.get(field) for field in fields]
        axes = None if not views or views[0] is None else views[0].axes
        if axes is None or call.attrs.axis is None:
            return None
        bases = [view.base for view in views if view is not None and view.axes == axes]
        if len(bases) != len(views):
            return None
        axis = axes[int(call.attrs.axis) % len(axes)]
        return _View(self.graph.emit(op.concat(bases, axis), var.name), axes)

    def _reduce(self, var: relax.Var, call: Any, view: _View) -> _View:
        rank = len(view.axes)
        reduced = range(rank) if call.attrs.axis is None else ints(call.attrs.axis)
        gone = {axis % rank for axis in reduced}
        moved = with_attributes(call, [view.base], axis=sorted(view.axes[axis] for axis in gone))
        base = self.graph.emit(moved, var.name)
        if call.attrs.keepdims:
            return _View(base, view.axes)
        left = [view.axes[axis] for axis in range(rank) if axis not in gone]
        return _View(base, tuple(sorted(left).index(axis) for axis in left))

    def _reshape(self, var: relax.Var, view: _View) -> _View | None:
        """A reshape that only adds and drops axes of length 1."""
        base, new = shape_of(view.base), shape_of(var)
        order = [axis for axis in view.axes if base[axis] != 1]
        if [base[axis] for axis in order] != [size for size in new if size != 1]:
            return None
        solid = sorted(order)
        ones = len(new) - len(solid)
        flat = op.reshape(view.base, [*(base[axis] for axis in solid), *[1] * ones])
        positions = iter(solid.index(axis) for axis in order)
        free = iter(range(len(solid), len(new)))
        axes = tuple(next(free) if size == 1 else next(positions) for size in new)
        return _View(self.graph.emit(flat, var.name), axes)


# -- the same operator on the base, where it has one argument that is a view --


def _same(call: Any, view: _View) -> relax.Call:
    return relax.Call(call.op, [view.base, *call.args[1:]], call.attrs, call.ty_args)


def _along(call: Any, view: _View) -> relax.Call:
    """Operators with one `axis`."""
    axis = view.axes[int(call.attrs.axis) % len(view.axes)]
    return with_attributes(call, [view.base, *call.args[1:]], axis=axis)


def _parameters_known(call: Any, view: _View) -> relax.Call | None:
    known = all(array_of(argument) is not None for argument in call.args[1:])
    return _along(call, view) if known else None


def _pad(call: Any, view: _View) -> relax.Call:
    pairs = ints(call.attrs.pad_width)
    widths = [0] * len(pairs)
    for position, axis in enumerate(view.axes):
        widths[2 * axis : 2 * axis + 2] = pairs[2 * position : 2 * position + 2]
    return with_attributes(call, [view.base], pad_width=widths)


def _slice(call: Any, view: _View) -> relax.Call:
    lists = [list(argument.fields) for argument in call.args[1:]]
    axes = [view.axes[int(axis.value) % len(view.axes)] for axis in lists[0]]
    inside = bool(call.attrs.assume_inbound)
    return op.strided_slice(view.base, axes, *lists[1:], assume_inbound=inside)


_RULES = {
    **dict.fromkeys(families.UNARY, _same),
    **dict.fromkeys(families.SCALED, _parameters_known),
    "relax.nn.prelu": _parameters_known,
    "relax.nn.softmax": _along,
    "relax.nn.log_softmax": _along,
    "relax.split": _along,
    "relax.nn.pad": _pad,
    "relax.strided_slice": _slice,
}
