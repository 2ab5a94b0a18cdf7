"""Decide which float values become int8, and which of them must share scale and zero point.

Nothing is changed here: the plan is computed on the float module and `insert.py` carries it out.
"""

from __future__ import annotations

import dataclasses
import fnmatch
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from tvm import ir, relax

from ...errors import FewbitsError, nearest
from ..rewrite import layer_of
from .operators import ANCHORS, ARITHMETIC, CLAMPS, FIXED_RANGES, MOVERS, POOLS, SCALAR_UNARY, UNARY

Var = relax.Var


@dataclasses.dataclass
class Plan:
    """Which values are quantized, and how they hang together.

    Attributes:
        quantized: names of the float values to quantize, in program order (inputs first).
        group: for each of them the representative name of those that share its parameters.
        observed: names whose ranges decide, per representative (movers repeat their input's).
        fixed: representative → (low, high) known beforehand.
        floats: names of float layers that have no integer form or were excluded, with the reason.
        anchors: multiply-accumulate layer → name of the quantized value that it ends in.
    """

    quantized: list[str]
    group: dict[str, str]
    observed: dict[str, list[str]]
    fixed: dict[str, tuple[float, float]]
    floats: dict[str, str]
    anchors: dict[str, str]


def matches(patterns: Sequence[str], name: str, operator: str) -> bool:
    """Whether a layer is selected: by name, wildcard, ``re:`` pattern or operator (``conv2d``)."""
    # Of an ONNX node that becomes several bindings, the first are called ``node:1``, ``node:2``.
    stem, _, suffix = name.rpartition(":")
    names = (name, stem) if stem and suffix.isdigit() else (name,)
    return any(_matches(pattern, one, operator) for pattern in patterns for one in names)


def _matches(pattern: str, name: str, operator: str) -> bool:
    if pattern.startswith("re:"):
        try:
            return re.fullmatch(pattern[3:], name) is not None
        except re.error as error:
            raise FewbitsError(
                "unknown-option",
                f"{pattern[3:]!r} is not a regular expression: {error}",
                where="ignore",
                hint="in a wildcard (without re:), * stands for any text",
            ) from error
    short = operator.removeprefix("relax.").removeprefix("nn.")
    return pattern in (name, short, operator) or fnmatch.fnmatchcase(name, pattern)


def _operator(expression: relax.Expr) -> str | None:
    return expression.op.name if isinstance(expression, relax.Call) else None


def _variables(call: relax.Call) -> list[Var]:
    found: list[Var] = []
    for argument in call.args:
        fields = argument.fields if isinstance(argument, relax.Tuple) else [argument]
        found += [field for field in fields if isinstance(field, relax.Var)]
    return found


def channel_axis(anchor: relax.Expr) -> int:
    """The axis of a multiply-accumulate layer's result that counts output channels."""
    return len(anchor.ty.shape.values) - 1 if _operator(anchor) == "relax.matmul" else 1


def weight_axis(anchor: relax.Call) -> int:
    """The axis of a multiply-accumulate layer's weights that makes output channels."""
    if _operator(anchor) == "relax.matmul":
        return len(anchor.args[1].ty.shape.values) - 1
    return 1 if _operator(anchor) == "relax.nn.conv2d_transpose" else 0


def _is_scalar(expression: relax.Expr) -> bool:
    return isinstance(expression, ir.GenericConst) and int(np.prod(expression.value.shape)) == 1


def _is_float(expression: relax.Expr) -> bool:
    return isinstance(expression.ty, relax.TensorType) and expression.ty.dtype == "float32"


def _same_shape(a: Var, b: Var) -> bool:
    return [int(d) for d in a.ty.shape.values] == [int(d) for d in b.ty.shape.values]


class _Graph:
    """The module's bindings with their users and elementwise sources."""

    def __init__(self, module: ir.IRModule) -> None:
        function = module["main"]
        self.parameters = list(function.params)
        self.bindings = [(b.var, b.value) for block in function.body.blocks for b in block.bindings]
        self.value = dict(self.bindings)
        self.names = {var.name for var, _ in self.bindings}
        self.users: dict[Var, list[Var]] = {var: [] for var in [*self.parameters, *self.value]}
        body = function.body.body
        self.results = list(body.fields) if isinstance(body, relax.Tuple) else [body]
        for var, value in self.bindings:
            used = _variables(value) if isinstance(value, relax.Call) else []
            if isinstance(value, relax.Var):
                used = [value]
            elif isinstance(value, relax.TupleGetItem):
                used = [value.tuple_value]
            elif isinstance(value, relax.Tuple):
                used = [field for field in value.fields if isinstance(field, relax.Var)]
            for variable in used:
                self.users[variable].append(var)
        self.source = self._sources()

    def _sources(self) -> dict[Var, Var]:
        """Values that are an elementwise function of one other value, with that value."""
        source: dict[Var, Var] = {}
        for var, value in self.bindings:
            operator = _operator(value)
            if operator not in UNARY | SCALAR_UNARY or not _is_float(var):
                continue
            assert isinstance(value, relax.Call)
            if not all(
                isinstance(a, relax.Var) or _is_scalar(a) or not isinstance(a, ir.GenericConst)
                for a in value.args
            ):
                continue
            roots = {source.get(v, v) for v in _variables(value)}
            if len(roots) == 1:
                root = roots.pop()
                if _same_shape(root, var):
                    source[var] = root
        return source

    def mover(self, var: Var) -> relax.Call | None:
        """The data movement that a value is the result of, or a piece of as with a split."""
        value: Any = self.value.get(var)
        if value is None:
            return None
        if isinstance(value, relax.TupleGetItem) and isinstance(value.tuple_value, relax.Var):
            value = self.value.get(value.tuple_value)
        return value if _operator(value) in MOVERS and _is_float(var) else None

    def only_user(self, var: Var) -> Var | None:
        users = self.users[var]
        return users[0] if len(users) == 1 and var not in self.results else None

    def bias_of(self, var: Var) -> Var | None:
        """The value ``var + constant`` if that is what alone uses it."""
        user = self.only_user(var)
        if user is None or _operator(self.value[user]) != "relax.add":
            return None
        call = self.value[user]
        constants = [a for a in call.args if isinstance(a, ir.GenericConst)]
        if len(constants) != 1 or not _same_shape(user, var):
            return None
        axis = channel_axis(self.value[var])
        return user if _is_channel(constants[0], var, axis) else None

    def clamp_of(self, var: Var) -> Var | None:
        """The clamp of `var` if it alone uses it and is not itself inside a longer function."""
        user = self.only_user(var)
        if user is None or _operator(self.value[user]) not in CLAMPS:
            return None
        return None if self.is_inner(user) else user

    def is_inner(self, var: Var) -> bool:
        """Inside an elementwise function: every user continues the function of the same source."""
        users = self.users[var]
        if var not in self.source or not users or var in self.results:
            return False
        return all(self.source.get(user) == self.source[var] for user in users)


def _is_channel(constant: ir.GenericConst, var: Var, axis: int) -> bool:
    """A constant with one value per channel, counted along `axis`, or one in all."""
    shape = [int(d) for d in constant.value.shape]
    rank = len(var.ty.shape.values)
    padded = [1] * (rank - len(shape)) + shape
    return len(padded) == rank and all(d == 1 for i, d in enumerate(padded) if i != axis)


def make_plan(module: ir.IRModule, ignore: Sequence[str]) -> Plan:
    """What to quantize in a canonical float module; `ignore` selects layers that stay float.

    Raises:
        FewbitsError: ``unknown-layer`` for a pattern of `ignore` that selects nothing,
            ``unknown-option`` for a malformed one.
    """
    graph = _Graph(module)
    _check_patterns(graph, ignore)
    inner: set[Var] = {var for var in graph.source if graph.is_inner(var)}
    floats: dict[str, str] = {}
    anchors: dict[Var, Var] = {}
    supported: dict[Var, list[Var]] = {}  # last value of a layer → its float operands
    absorbed: set[Var] = set()  # biases and clamps that belong to an earlier layer

    for var, value in graph.bindings:
        operator = _operator(value)
        if isinstance(value, relax.TupleGetItem) and (call := graph.mover(var)) is not None:
            if not matches(ignore, layer_of(value.tuple_value.name, graph.names), call.op.name):
                supported[var] = _variables(call)
            continue
        if operator is None or not _is_float(var) or var in absorbed:
            continue
        assert isinstance(value, relax.Call)
        reason = _unsupported(operator, value)
        if matches(ignore, layer_of(var.name, graph.names), operator):
            reason = "kept float as asked"
        if reason:
            floats[var.name] = reason
            continue
        operands = [v for v in _variables(value) if _is_float(v)]
        last = var
        # A product of two run-time values has no bias; what is added is another layer.
        weighted = operator in ANCHORS and isinstance(value.args[1], ir.GenericConst)
        if weighted and (bias := graph.bias_of(last)) is not None:
            inner.add(last)
            absorbed.add(bias)
            last = bias
        clamped = operator in ANCHORS | ARITHMETIC and var not in graph.source
        if clamped and (clamp := graph.clamp_of(last)) is not None:
            inner.add(last)
            absorbed.add(clamp)
            last = clamp
        if operator in ANCHORS:
            anchors[var] = last
        if var in graph.source and last is var:
            operands = [graph.source[var]]
        supported[last] = operands

    wanted: set[Var] = set()
    for last, operands in supported.items():
        if last in inner or graph.mover(last) is not None:
            continue
        wanted.update([last, *operands])
    _spread_over_movers(graph, supported, wanted)
    wanted -= inner
    return _share(graph, wanted, floats, anchors)


def _check_patterns(graph: _Graph, patterns: Sequence[str]) -> None:
    """A pattern that selects nothing is a misspelt layer, which would silently be quantized."""
    layers = [
        (layer_of(v.name, graph.names), op)
        for v, value in graph.bindings
        if (op := _operator(value)) is not None
    ]
    for pattern in patterns:
        if not any(_matches(pattern, name, operator) for name, operator in layers):
            raise FewbitsError(
                "unknown-layer",
                f"no layer is called {pattern!r}",
                where="ignore",
                hint=nearest(pattern, {name for name, _ in layers}),
            )


def _unsupported(operator: str, call: relax.Call) -> str | None:
    """Why an operator has no integer form here, or None when it has one."""
    if operator == "relax.nn.conv2d_transpose" and int(call.attrs.groups) != 1:
        return "transposed convolution in groups has no integer form"
    if operator in ("relax.nn.conv2d", "relax.nn.conv1d", "relax.nn.conv2d_transpose"):
        return None if isinstance(call.args[1], ir.GenericConst) else "weights are not constant"
    if operator in ANCHORS | ARITHMETIC | UNARY | MOVERS | POOLS | {"relax.nn.softmax"}:
        return None
    if operator in SCALAR_UNARY and any(_is_scalar(a) for a in call.args):
        return None
    if operator == "relax.divide" and all(isinstance(a, relax.Var) for a in call.args):
        return None
    constants = all(isinstance(a, ir.GenericConst) for a in call.args[1:])
    if operator == "relax.nn.prelu" and constants:
        return None
    if operator == "relax.nn.layer_norm" and constants and _over_last_axis(call):
        return None
    return f"{operator.removeprefix('relax.')} has no integer form"


def _over_last_axis(norm: relax.Call) -> bool:
    rank = len(norm.args[0].ty.shape.values)
    return [int(axis) % rank for axis in norm.attrs.axes] == [rank - 1]


def _spread_over_movers(graph: _Graph, supported: dict[Var, list[Var]], wanted: set[Var]) -> None:
    """A mover is quantized on both sides as soon as one side is."""
    movers = [v for v in supported if graph.mover(v) is not None]
    for var in reversed(movers):
        if var in wanted:
            wanted.update(supported[var])
    for var in movers:
        if supported[var] and all(operand in wanted for operand in supported[var]):
            wanted.add(var)
            wanted.update(supported[var])


def _brings_values(call: relax.Call) -> bool:
    """Whether a mover's result holds numbers that its operands' ranges need not cover."""
    if _operator(call) == "relax.nn.pad":
        return call.attrs.pad_mode == "constant" and float(call.attrs.pad_value) != 0.0
    fields = call.args[0].fields if isinstance(call.args[0], relax.Tuple) else [call.args[0]]
    return any(isinstance(field, ir.GenericConst) for field in fields)


def _share(
    graph: _Graph, wanted: set[Var], floats: dict[str, str], anchors: dict[Var, Var]
) -> Plan:
    order = [v for v in [*graph.parameters, *graph.value] if v in wanted]
    parent: dict[Var, Var] = {v: v for v in order}

    def find(v: Var) -> Var:
        while parent[v] != v:
            v = parent[v]
        return v

    moved: set[Var] = set()
    for var in order:
        value = graph.mover(var)
        if value is None or _brings_values(value):
            continue
        operands = [v for v in _variables(value) if v in wanted]
        if operands and all(v in wanted for v in _variables(value) if _is_float(v)):
            moved.add(var)
            for operand in operands:
                a, b = find(operand), find(var)
                if a != b:
                    parent[b] = a
    group = {v.name: find(v).name for v in order}
    observed: dict[str, list[str]] = {}
    fixed: dict[str, tuple[float, float]] = {}
    ranges: dict[str, set[tuple[float, float] | None]] = {}
    for var in order:
        if var in moved:
            continue
        representative = group[var.name]
        observed.setdefault(representative, []).append(var.name)
        operator = _operator(graph.value[var]) if var in graph.value else None
        ranges.setdefault(representative, set()).add(FIXED_RANGES.get(operator or ""))
    for representative, known in ranges.items():
        only = next(iter(known))
        if len(known) == 1 and only is not None:
            fixed[representative] = only
    return Plan(
        quantized=[v.name for v in order],
        group=group,
        observed=observed,
        fixed=fixed,
        floats=floats,
        anchors={a.name: last.name for a, last in anchors.items()},
    )
