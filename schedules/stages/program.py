"""A PrimFunc as a list of stages: loops over axes that compute one buffer each.

Legalized operators are block nests of one form. Read as stages, a schedule is a decision about
lists and indices, and the loops are written afresh, so that symbolic sizes, tails and accumulators
are under control. What does not have this form (`read` gives None) stays with TVM.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import tvm_ffi
from tvm import ir, s_tir, tirx
from tvm.ir import prim

#: An annotation of loops whose author knows that their iterations are independent.
INDEPENDENT = "fewbits.independent"
#: Reductions whose order and grouping may be changed.
COMBINERS = (prim.Add, prim.Max, prim.Min, prim.Mul)


@dataclasses.dataclass(frozen=True)
class Axis:
    """A loop: its variable runs from 0 to `extent` - 1."""

    var: Any
    extent: Any
    reduces: bool


@dataclasses.dataclass(frozen=True)
class Stage:
    """``buffer[indices] = value`` for all axes; with `combine` values are gathered over an axis.

    Attributes:
        name: the block's name.
        axes: in the block's order.
        buffer: what it writes.
        indices: of the element written; no reduction axis occurs in them.
        value: of one element, or one term of the reduction.
        combine: a class of `COMBINERS`, or None.
        initial: what the reduction starts with.
    """

    name: str
    axes: tuple[Axis, ...]
    buffer: Any
    indices: tuple[Any, ...]
    value: Any
    combine: Any = None
    initial: Any = None

    @property
    def spatial(self) -> tuple[Axis, ...]:
        """The axes along which elements are written."""
        return tuple(axis for axis in self.axes if not axis.reduces)

    @property
    def reductions(self) -> tuple[Axis, ...]:
        """The axes that are summed (or otherwise combined) over."""
        return tuple(axis for axis in self.axes if axis.reduces)

    def at(self, values: Mapping[Any, Any]) -> Stage:
        """The stage with some of its axes at given places."""
        return dataclasses.replace(
            self,
            axes=tuple(axis for axis in self.axes if axis.var not in values),
            indices=tuple(substitute(index, values) for index in self.indices),
            value=substitute(self.value, values),
        )

    def writes_in_order(self) -> bool:
        """Whether element (i, j, ...) of the buffer is computed at axes (i, j, ...)."""
        axes = self.spatial
        return len(axes) == len(self.indices) and all(
            is_axis(index, axis) for index, axis in zip(self.indices, axes, strict=True)
        )


@dataclasses.dataclass(frozen=True)
class Program:
    """A PrimFunc's stages in order, and the buffers that live only inside it."""

    stages: tuple[Stage, ...]
    intermediates: tuple[Any, ...]


def is_axis(index: Any, axis: Axis) -> bool:
    """Whether an index is just the axis (an axis of one element is index 0 as well)."""
    if isinstance(index, prim.IntImm):
        return int(index.value) == 0 and is_one(axis.extent)
    return index.same_as(axis.var)


def is_one(extent: Any) -> bool:
    """Whether a size is the constant 1."""
    return isinstance(extent, prim.IntImm) and int(extent.value) == 1


def loads(node: Any) -> list[ir.TensorLoad]:
    """Every element read in an expression or statement, in order of appearance."""
    found: list[ir.TensorLoad] = []
    tvm_ffi.structural_walk(node, [(ir.TensorLoad, lambda load: found.append(load))])
    return found


def uses(node: Any, variable: Any) -> bool:
    """Whether the variable occurs in the expression."""
    found: list[bool] = []
    tvm_ffi.structural_walk(
        node, [(ir.Var, lambda var: found.append(True) if var.same_as(variable) else None)]
    )
    return bool(found)


def substitute(node: Any, values: Mapping[Any, Any]) -> Any:
    """The expression with variables replaced."""
    if not values:
        return node
    return tvm_ffi.structural_map(node, [(ir.Var, lambda var: values.get(var, var))])


def read(function: tirx.PrimFunc) -> Program | None:
    """The stages of a legalized PrimFunc, or None where it has another form."""
    root = function.body
    if not isinstance(root, s_tir.SBlockRealize) or root.block.iter_vars:
        return None
    stages: list[Stage] = []
    for statement in tirx.stmt_list(root.block.body):
        stage = read_stage(statement)
        if stage is None:
            return None
        stages.append(stage)
    if root.block.match_buffers:
        return None
    return Program(tuple(stages), tuple(root.block.alloc_buffers))


def read_stage(statement: Any) -> Stage | None:
    """The stage that a loop nest is, or None where it has another form."""
    loops: dict[Any, Any] = {}
    while isinstance(statement, tirx.For):
        plain = statement.kind == tirx.ForKind.SERIAL and not statement.annotations
        if not plain or not _is_zero(statement.min) or statement.step is not None:
            return None
        loops[statement.loop_var] = statement.extent
        statement = statement.body
    if not isinstance(statement, s_tir.SBlockRealize):
        return None
    block = statement.block
    if not _is_true(statement.predicate) or block.alloc_buffers or block.match_buffers:
        return None
    axes: list[Axis] = []
    for iterator, value in zip(block.iter_vars, statement.iter_values, strict=True):
        extent = loops.pop(value, None) if isinstance(value, ir.Var) else None
        if extent is None and not (_is_zero(value) and is_one(iterator.dom.extent)):
            return None
        kind = int(iterator.iter_type)
        if kind not in (tirx.IterVar.DataPar, tirx.IterVar.CommReduce):
            return None
        axes.append(Axis(iterator.var, iterator.dom.extent, kind == tirx.IterVar.CommReduce))
    store = block.body
    if loops or not isinstance(store, tirx.BufferStore):
        return None
    return _with_reduction(block, tuple(axes), store)


def _with_reduction(block: Any, axes: tuple[Axis, ...], store: Any) -> Stage | None:
    plain = Stage(block.name_hint, axes, store.buffer, tuple(store.indices), store.value)
    if block.init is None:
        return None if plain.reductions or _reads(store.value, store.buffer) else plain
    if not isinstance(block.init, tirx.BufferStore) or not isinstance(store.value, COMBINERS):
        return None
    gathered, term = store.value.a, store.value.b
    if not isinstance(gathered, ir.TensorLoad):
        gathered, term = term, gathered
    if not isinstance(gathered, ir.TensorLoad) or not gathered.source.same_as(store.buffer):
        return None
    if not tvm_ffi.structural_equal(gathered.indices, store.indices):
        return None
    if _reads(term, store.buffer) or not plain.reductions:
        return None
    return dataclasses.replace(
        plain, value=term, combine=type(store.value), initial=block.init.value
    )


def _reads(node: Any, buffer: Any) -> bool:
    return any(load.source.same_as(buffer) for load in loads(node))


def _is_zero(value: Any) -> bool:
    return isinstance(value, prim.IntImm) and int(value.value) == 0


def _is_true(value: Any) -> bool:
    return isinstance(value, prim.IntImm) and int(value.value) == 1


def inlined(value: Any, producer: Stage) -> Any:
    """The expression with every read of the producer's buffer replaced by its formula."""
    order = [axis.var for axis in producer.spatial]

    def replace(load: ir.TensorLoad) -> Any:
        if not load.source.same_as(producer.buffer):
            return load
        return substitute(producer.value, dict(zip(order, load.indices, strict=True)))

    return tvm_ffi.structural_map(value, [(ir.TensorLoad, replace)])


def total(extents: Sequence[Any]) -> Any:
    """The product of sizes, a 64-bit expression."""
    product: Any = prim.IntImm("int64", 1)
    for extent in extents:
        product = product * extent
    return product


def constant(extent: Any) -> int | None:
    """The value of a size that is known at compile time."""
    return int(extent.value) if isinstance(extent, prim.IntImm) else None
