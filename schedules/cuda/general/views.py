"""Reshapes between operators that move or compute elements become part of their kernels.

A reshape costs nothing by itself, so TVM fuses nothing with it; but between the slices, products
and concatenations of a rotary embedding it keeps apart what could be one kernel. There it becomes
a function that copies elements, which fusion writes into its neighbours. Around kernels of
products, and where sizes that are known at run time only are regrouped, it stays a view.

So it is with a concatenation along an axis whose size is known at run time only, such as that of a
cache of keys with the newest one: TVM does not see that its elements are moved one by one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import tvm_ffi
from tvm import ir, relax, s_tir, te, tirx
from tvm.ir import prim

from ...stages.program import read

#: TVM's patterns of fusion: what computes or moves each element on its own.
_INJECTIVE = 2
#: TVM's expressions are built by calls that its annotations do not cover.
_relax: Any = relax


def fuse_views(module: ir.IRModule) -> ir.IRModule:
    """Let reshapes between injective operators be fused with them.

    Args:
        module: after ``AnnotateTIROpPattern``.

    Returns:
        The module, in which such reshapes call injective functions of their own.
    """
    module = _with_concatenations(module)
    views = _Views(module)
    graphs = {
        variable: views.of(function)
        for variable, function in module.functions_items()
        if isinstance(function, relax.Function)
    }
    if not views.made:
        return module
    result = ir.IRModule(dict(module.functions.items()), attrs=module.attrs)
    for function, variable in views.made:
        result[variable] = function
    for variable, graph in graphs.items():
        result.update_func(variable, graph)
    return relax.transform.Normalize()(result)


def _with_concatenations(module: ir.IRModule) -> ir.IRModule:
    """Concatenations along a symbolic axis are injective as well; TVM does not see it."""
    updates = {
        variable: function.with_attr("op_pattern", _INJECTIVE)
        for variable, function in module.functions_items()
        if isinstance(function, tirx.PrimFunc) and _concatenates(function)
    }
    if not updates:
        return module
    result = ir.IRModule(dict(module.functions.items()), attrs=module.attrs)
    for variable, function in updates.items():
        result.update_func(variable, function)
    return result


def _concatenates(function: tirx.PrimFunc) -> bool:
    if int(function.attrs.get("op_pattern", _INJECTIVE)) <= _INJECTIVE:
        return False
    program = read(function)
    if program is None or len(program.stages) != 1:
        return False
    (stage,) = program.stages
    value = stage.value
    return (
        isinstance(value, ir.Call)
        and str(value.op.name) == "prim.if_then_else"
        and not stage.reductions
        and stage.writes_in_order()
        and _only_moves(value)
    )


def _only_moves(value: Any) -> bool:
    """Whether a value is one of several elements."""
    while isinstance(value, ir.Call) and str(value.op.name) == "prim.if_then_else":
        _, branch, value = value.args
        if not isinstance(branch, ir.TensorLoad):
            return False
    return isinstance(value, ir.TensorLoad)


class _Views:
    """The calls of a module's functions; `made` has the functions that are new."""

    def __init__(self, module: ir.IRModule) -> None:
        self.module = module
        self.made: list[tuple[Any, ir.GlobalVar]] = []

    def of(self, function: relax.Function) -> relax.Function:
        """The function with calls of copies in the place of some reshapes."""
        bindings = [each for block in function.body.blocks for each in block.bindings]
        values = {each.var: each.value for each in bindings}
        readers: dict[Any, list[Any]] = {}
        for each in bindings:
            for variable in relax.analysis.free_vars(each.value):
                readers.setdefault(variable, []).append(each.value)
        for variable in relax.analysis.free_vars(function.body.body):
            readers.setdefault(variable, []).append(None)
        blocks = [
            relax.DataflowBlock([self._binding(each, values, readers) for each in block.bindings])
            if isinstance(block, relax.DataflowBlock)
            else block
            for block in function.body.blocks
        ]
        body = relax.SeqExpr(blocks, function.body.body)
        return relax.Function(
            function.params, body, function.ret_ty, function.is_pure, function.attrs
        )

    def _binding(
        self, binding: relax.VarBinding, values: Mapping[Any, Any], readers: Mapping[Any, list[Any]]
    ) -> relax.VarBinding:
        reshape: Any = binding.value
        if not self._is_reshape(reshape):
            return binding
        (source,) = reshape.args[1].fields
        following = readers.get(binding.var, [])
        if not self._injective(values.get(source)) or not following:
            return binding
        if not all(self._injective(each) for each in following):
            return binding
        function = _copy(source.ty, binding.var.ty)
        if function is None:
            return binding
        variable = self._variable(function)
        call = _relax.call_tir(variable, _relax.Tuple([source]), binding.var.ty)
        return relax.VarBinding(binding.var, call)

    def _variable(self, function: Any) -> ir.GlobalVar:
        for other, variable in self.made:
            if tvm_ffi.structural_equal(other, function):
                return variable
        names = {variable.name_hint for variable in self.module.functions}
        number = len(self.made)
        while f"view_{number}" in names:
            number += 1
        variable: ir.GlobalVar = _relax.BlockBuilder().add_func(function, f"view_{number}")
        self.made.append((function, variable))
        return variable

    def _callee(self, value: Any) -> tirx.PrimFunc | None:
        if getattr(getattr(value, "op", None), "name", "") != "relax.call_tir":
            return None
        function = self.module.functions.get(value.args[0])
        return function if isinstance(function, tirx.PrimFunc) else None

    def _is_reshape(self, value: Any) -> bool:
        function = self._callee(value)
        return (
            function is not None
            and len(value.args) == 2
            and len(value.args[1].fields) == 1
            and isinstance(function.body, s_tir.SBlockRealize)
            and bool(relax.analysis.has_reshape_pattern(function))
        )

    def _injective(self, value: Any) -> bool:
        """Whether a value is a call that is fused with its neighbours, or another reshape."""
        function = self._callee(value)
        if function is None:
            return False
        return int(function.attrs.get("op_pattern", _INJECTIVE + 1)) <= _INJECTIVE


def _copy(source: Any, result: Any) -> tirx.PrimFunc | None:
    """Every element at its own place; None where symbolic sizes are regrouped."""
    shapes = [list(ty.shape.values) for ty in (source, result)]
    runs = _runs(*shapes)
    sizes: dict[Any, Any] = {}
    own = [_own_sizes(shape, sizes) for shape in shapes]
    if runs is None or own[0] is None or own[1] is None:
        return None
    x = te.placeholder(own[0], str(source.dtype), "x")
    zero = prim.IntImm("int64", 0)

    def read(*at: Any) -> Any:
        places = [zero] * len(shapes[0])
        for ours, theirs in runs:
            if len(ours) == 1 and len(theirs) == 1:
                places[ours[0]] = at[theirs[0]]
                continue
            position: Any = zero
            for axis in theirs:
                position = position * shapes[1][axis] + at[axis]
            for axis in reversed(ours):
                places[axis] = tirx.floormod(position, shapes[0][axis])
                position = tirx.floordiv(position, shapes[0][axis])
        return x[tuple(places)]

    function = te.create_prim_func([x, te.compute(own[1], read, name="view")])
    return function.with_attr("op_pattern", _INJECTIVE).without_attr("global_symbol")


def _runs(source: list[Any], result: list[Any]) -> list[tuple[list[int], list[int]]] | None:
    """Axes that hold the same elements, axes of one element left out; None where there are none
    that do: a symbolic size has to be an axis of both."""
    left = [n for n, size in enumerate(source) if not _is_one(size)]
    right = [n for n, size in enumerate(result) if not _is_one(size)]
    runs: list[tuple[list[int], list[int]]] = []
    while left and right:
        ours, theirs = [left.pop(0)], [right.pop(0)]
        sizes = source[ours[0]], result[theirs[0]]
        if not all(isinstance(size, prim.IntImm) for size in sizes):
            if not tvm_ffi.structural_equal(*sizes, map_free_vars=False):
                return None
        else:
            one, other = (int(size) for size in sizes)
            while one != other:
                queue, axes, shape = (
                    (left, ours, source) if one < other else (right, theirs, result)
                )
                if not queue or not isinstance(shape[queue[0]], prim.IntImm):
                    return None
                axes.append(queue.pop(0))
                more = int(shape[axes[-1]])
                one, other = (one * more, other) if axes is ours else (one, other * more)
        runs.append((ours, theirs))
    return None if left or right else runs


def _is_one(size: Any) -> bool:
    return isinstance(size, prim.IntImm) and int(size) == 1


def _own_sizes(shape: Sequence[Any], sizes: dict[Any, Any]) -> list[Any] | None:
    """Sizes of a new function: its own variables; None for anything but variables and numbers."""
    made = []
    for size in shape:
        if isinstance(size, tirx.Var):
            made.append(sizes.setdefault(size, tirx.Var(str(size.name), "int64")))
        elif isinstance(size, prim.IntImm):
            made.append(size)
        else:
            return None
    return made
