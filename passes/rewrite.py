"""Writing Relax to Relax passes over one dataflow block, with names kept.

    rewriter = Rewriter(module)
    for var, value in rewriter.bindings:
        if <value is of interest>:
            rewriter.replace(var, rewriter.emit(<new expression>, var.name))
        else:
            rewriter.keep(var, value)
    return rewriter.finish()

Old variables inside a new expression are looked up with `rewriter.map`. `finish` removes what is
no longer used.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence
from typing import Any, TypeGuard

import numpy as np
from tvm import ir, relax

from ..ops.symbolic import is_symbol


class Rewriter:
    """A new ``main`` built binding by binding from an old one.

    Args:
        module: as described in docs/architecture.md.
        parameters: new parameters, where they differ from the old ones.
    """

    def __init__(self, module: ir.IRModule, parameters: Sequence[relax.Var] | None = None) -> None:
        self.module = module
        self.function: relax.Function = module["main"]
        self.bindings: list[tuple[relax.Var, relax.Expr]] = [
            (b.var, b.value) for block in self.function.body.blocks for b in block.bindings
        ]
        self.values: dict[relax.Var, relax.Expr] = dict(self.bindings)
        self.parameters = list(self.function.params if parameters is None else parameters)
        self.attributes: dict[str, Any] = dict(self.function.attrs or {})
        self._map: dict[relax.Var, relax.Expr] = {}
        self._emitted: list[tuple[relax.Var, relax.Expr]] = []
        self._builder = relax.BlockBuilder()

    def emit(self, value: relax.Expr, name: str) -> relax.Var:
        """Bind a new expression (its variables are new ones) to a variable of that name.

        Where several bindings that survive `finish` want the same name, the last keeps it and the
        others get a suffix ``:2``, ``:3`` ...
        """
        value = self._builder.normalize(value)
        var = relax.DataflowVar(name, value.ty)
        self._emitted.append((var, value))
        return var

    def map(self, expression: relax.Expr) -> relax.Expr:
        """The new expression that stands for an old one."""
        if isinstance(expression, relax.Var):
            return self._map.get(expression, expression)
        if isinstance(expression, relax.Tuple):
            return relax.Tuple([self.map(field) for field in expression.fields])
        if isinstance(expression, relax.TupleGetItem):
            source = self.map(expression.tuple_value)
            if isinstance(source, relax.Tuple):
                return source.fields[expression.index]
            return relax.TupleGetItem(source, expression.index)
        if is_tensor_call(expression):
            arguments = [self.map(argument) for argument in expression.args]
            return relax.Call(expression.op, arguments, expression.attrs, expression.ty_args)
        return expression

    def replace(self, var: relax.Var, new: relax.Expr) -> None:
        """From now on the old variable stands for this new expression (variable or constant)."""
        self._map[var] = new

    def keep(self, var: relax.Var, value: relax.Expr | None = None) -> relax.Expr:
        """Carry the old binding over; gives what now stands for its variable."""
        new = self.map(self.values[var] if value is None else value)
        if not isinstance(new, relax.Var | ir.GenericConst):
            new = self.emit(new, var.name)
        self.replace(var, new)
        return new

    def finish(self, outputs: Sequence[relax.Expr] | None = None) -> ir.IRModule:
        """The new module, without bindings that nothing uses.

        `outputs` are new expressions; by default what stands for the old outputs.
        """
        body = self.function.body.body
        if outputs is None:
            new = self.map(body)
        else:
            new = relax.Tuple(list(outputs)) if isinstance(body, relax.Tuple) else outputs[0]
        live = set(variables(new))
        kept: list[tuple[relax.Var, relax.Expr]] = []
        for var, value in reversed(self._emitted):
            if var in live:
                kept.append((var, value))
                live.update(variables(value))
        taken = {parameter.name for parameter in self.parameters}
        names = {var: _unique(var.name, taken) for var, _ in kept}
        return assemble(self.parameters, list(reversed(kept)), new, self.attributes, names)


def _unique(name: str, taken: set[str]) -> str:
    """The name, with a suffix where it is taken; it is taken from then on."""
    unique, count = name, 1
    while unique in taken:
        count += 1
        unique = f"{name}:{count}"
    taken.add(unique)
    return unique


def assemble(
    parameters: Sequence[relax.Var],
    bindings: Iterable[tuple[relax.Var, relax.Expr]],
    result: relax.Expr,
    attributes: dict[str, Any],
    names: dict[relax.Var, str] | None = None,
) -> ir.IRModule:
    """A module whose ``main`` has these bindings in one dataflow block.

    `names` renames variables.
    """
    names = names or {}
    builder = relax.BlockBuilder()
    results = list(result.fields) if isinstance(result, relax.Tuple) else [result]
    escaping = {v for v in results if isinstance(v, relax.DataflowVar)}
    renamed: dict[relax.Var, relax.Var] = {}

    def new(expression: relax.Expr) -> relax.Expr:
        if isinstance(expression, relax.Var):
            return renamed.get(expression, expression)
        if isinstance(expression, relax.Tuple):
            return relax.Tuple([new(field) for field in expression.fields])
        if isinstance(expression, relax.TupleGetItem):
            return relax.TupleGetItem(new(expression.tuple_value), expression.index)
        if is_tensor_call(expression):
            arguments = [new(a) for a in expression.args]
            return relax.Call(expression.op, arguments, expression.attrs, expression.ty_args)
        return expression

    with builder.function("main", list(parameters)):
        with builder.dataflow():
            for var, value in bindings:
                value = builder.normalize(new(value))
                # What leaves the dataflow block must be an ordinary variable.
                kind = relax.Var if var in escaping else relax.DataflowVar
                renamed[var] = kind(names.get(var, var.name), value.ty)
                builder.emit_normalized(relax.VarBinding(renamed[var], value))
        final = new(result)
        builder.emit_func_output(final)
    module = builder.get()
    main = module["main"].with_attrs(attributes) if attributes else module["main"]
    module["main"] = main
    return module


def variables(expression: relax.Expr) -> list[relax.Var]:
    """The variables that an expression uses directly; symbolic dimensions are none."""
    if isinstance(expression, relax.Var):
        return [] if is_symbol(expression) else [expression]
    if isinstance(expression, relax.Tuple):
        return [v for field in expression.fields for v in variables(field)]
    if isinstance(expression, relax.TupleGetItem):
        return variables(expression.tuple_value)
    if isinstance(expression, relax.Call):
        return [v for argument in expression.args for v in variables(argument)]
    return []


def is_tensor_call(expression: Any) -> TypeGuard[relax.Call]:
    """Whether an expression calls an operator on values; sizes may hold calls on numbers."""
    return isinstance(expression, relax.Call) and not isinstance(expression.ty, ir.PrimType)


def operator_of(expression: Any) -> str | None:
    """The name of the operator that an expression calls, or None."""
    if isinstance(expression, relax.Call) and isinstance(expression.op, ir.Op):
        return expression.op.name
    return None


def layer_of(name: str, names: Container[str]) -> str:
    """The layer that a variable belongs to, as the user knows it.

    The helper bindings of an ONNX node are called ``node:1``, ``node:2``; its result ``node``.
    """
    stem, colon, suffix = name.rpartition(":")
    return stem if colon and suffix.isdigit() and stem in names else name


def constant(array: np.ndarray | np.generic) -> ir.GenericConst:
    """A constant with the array's dtype."""
    return relax.const(np.ascontiguousarray(array), str(array.dtype))


def as_array(expression: relax.Expr) -> np.ndarray:
    """The value of a constant."""
    assert isinstance(expression, ir.GenericConst)
    return expression.value.numpy()
