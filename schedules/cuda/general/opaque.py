"""Loops that are no stages: arg-max, running sums, sorting, scattering, whatever comes.

Block iterators say which loops are independent of each other. For plain loops it is derived: those
of a loop are independent if every buffer that is written inside has one index that is the loop's
variable in all accesses. Independent iterations are given a thread each, everything else runs in
the order written; a program with nothing independent gets a single thread.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import tvm_ffi
from tvm import ir, s_tir, tirx
from tvm.ir import prim
from tvm.tirx.script import builder as T

from ...stages.program import INDEPENDENT, Axis, constant, substitute, total, uses
from .launch import (
    THREADS,
    bound,
    ceildiv,
    fused,
    index,
    launch,
    serial_grid,
    simplified,
    stored_elsewhere,
    when,
)


@dataclasses.dataclass(frozen=True)
class BlockNest:
    """Loops around one block whose iterators are plain loops."""

    axes: tuple[Axis, ...]
    block: Any


@dataclasses.dataclass(frozen=True)
class Plain:
    """Statements without blocks, and buffers of theirs that each iteration may have for itself."""

    statement: Any
    temporaries: tuple[Any, ...]


def read_nest(statement: Any) -> BlockNest | None:
    """A nest of loops around a block, or None."""
    loops: dict[Any, Any] = {}
    while isinstance(statement, tirx.For):
        if not _is(statement.min, 0) or statement.step is not None:
            return None
        loops[statement.loop_var] = statement.extent
        statement = statement.body
    if not isinstance(statement, s_tir.SBlockRealize) or not _is(statement.predicate, 1):
        return None
    block = statement.block
    if block.match_buffers or block.alloc_buffers or not block.iter_vars:
        return None
    axes: list[Axis] = []
    for iterator, value in zip(block.iter_vars, statement.iter_values, strict=True):
        plain = isinstance(value, ir.Var) and loops.pop(value, None) is not None
        kind = int(iterator.iter_type)
        if not plain and not (_is(value, 0) and constant(iterator.dom.extent) == 1):
            return None
        if kind not in (tirx.IterVar.DataPar, tirx.IterVar.CommReduce):
            return None
        axes.append(Axis(iterator.var, iterator.dom.extent, kind == tirx.IterVar.CommReduce))
    return None if loops or _has_blocks(block.body) else BlockNest(tuple(axes), block)


def emit_nest(nest: BlockNest) -> None:
    """A thread for each place along the independent iterators."""
    spatial = [axis for axis in nest.axes if not axis.reduces]
    block = nest.block

    def write(places: dict[Any, Any]) -> None:
        if block.init is not None:
            T.add_to_parent(substitute(block.init, places))

        def step(values: dict[Any, Any]) -> None:
            T.add_to_parent(substitute(block.body, {**places, **values}))

        serial_grid([axis for axis in nest.axes if axis.reduces], step)

    _threads(spatial, write)


def emit_plain(plain: Plain) -> None:
    """A thread for each independent iteration."""
    loops, body = _opened(plain.statement)
    own = own_temporaries(plain)
    rest = [buffer for buffer in plain.temporaries if not any(buffer.same_as(o) for o in own)]
    shared = [buffer for buffer in _written(body) if not any(buffer.same_as(o) for o in own)]
    if rest:
        shared.extend(rest)
    free = [loop for loop in loops if _independent(loop, body, shared)]
    inner = [loop for loop in loops if not any(loop.same_as(other) for other in free)]
    if any(_depends(loop, inner) for loop in free):
        free, inner = [], loops

    def write(places: dict[Any, Any]) -> None:
        places = {
            loop.loop_var: places[loop.loop_var] + loop.min if not _is(loop.min, 0) else
            places[loop.loop_var] for loop in free
        }  # fmt: skip
        buffers = {
            buffer: T.alloc_buffer(
                tuple(buffer.ty.shape), str(buffer.ty.dtype), scope="local", layout=None
            )
            for buffer in own
        }
        statement = body
        for loop in reversed(inner):
            statement = tirx.For(
                loop.loop_var, loop.min, loop.extent, tirx.ForKind.SERIAL, statement
            )
        T.add_to_parent(stored_elsewhere(substitute(statement, places), buffers))

    _threads([Axis(loop.loop_var, loop.extent, False) for loop in free], write)


def own_temporaries(plain: Plain) -> list[Any]:
    """The temporaries that each iteration writes before it reads them."""
    _, body = _opened(plain.statement)
    return [buffer for buffer in plain.temporaries if _starts_with_store(body, buffer)]


def _opened(statement: Any) -> tuple[list[tirx.For], Any]:
    """Loops directly inside one another, and what is inside them all."""
    loops: list[tirx.For] = []
    while isinstance(statement, tirx.For) and statement.step is None:
        loops.append(statement)
        statement = statement.body
    return loops, statement


def emit_sequence(statement: Any) -> None:
    """Everything in one thread, in the order written."""
    with launch(index(1), 1):
        T.add_to_parent(statement)


def _threads(axes: Sequence[Axis], write: Any) -> None:
    size = simplified(total([axis.extent for axis in axes]))
    known = constant(size)
    threads = min(THREADS, -(-known // 32) * 32) if known is not None else THREADS
    if known == 1:
        threads = 1
    with launch(ceildiv(size, threads), threads) as (block, thread):
        position = T.Bind(block * threads + thread)
        with when(None if known is not None and known % threads == 0 else position < size):
            write(bound(fused(axes, position)))


def _independent(loop: tirx.For, body: Any, written: Sequence[Any]) -> bool:
    if loop.kind == tirx.ForKind.PARALLEL or INDEPENDENT in loop.annotations:
        return True
    return all(_sliced(loop.loop_var, body, buffer) for buffer in written)


def _sliced(variable: Any, body: Any, buffer: Any) -> bool:
    """Whether one index of all accesses to the buffer is the variable."""
    places = _accesses(body, buffer)
    return any(
        all(place[dimension].same_as(variable) for place in places)
        for dimension in range(min(map(len, places), default=0))
    )


def _accesses(body: Any, buffer: Any) -> list[list[Any]]:
    found: list[list[Any]] = []

    def load(access: ir.TensorLoad) -> None:
        if access.source.same_as(buffer):
            found.append(list(access.indices))

    def store(statement: tirx.BufferStore) -> None:
        if statement.buffer.same_as(buffer):
            found.append(list(statement.indices))

    tvm_ffi.structural_walk(body, [(ir.TensorLoad, load), (tirx.BufferStore, store)])
    return found


def _written(body: Any) -> list[Any]:
    found: list[Any] = []

    def store(statement: tirx.BufferStore) -> None:
        if not any(statement.buffer.same_as(buffer) for buffer in found):
            found.append(statement.buffer)

    tvm_ffi.structural_walk(body, [(tirx.BufferStore, store)])
    return found


def _starts_with_store(body: Any, buffer: Any) -> bool:
    """Whether the statement begins by writing the one element of a buffer."""
    size = constant(simplified(total(list(buffer.ty.shape))))
    first = tirx.stmt_list(body)[0]
    return size == 1 and isinstance(first, tirx.BufferStore) and first.buffer.same_as(buffer)


def _depends(loop: tirx.For, others: Sequence[tirx.For]) -> bool:
    return any(uses(part, other.loop_var) for other in others for part in (loop.min, loop.extent))


def _has_blocks(body: Any) -> bool:
    found: list[bool] = []
    tvm_ffi.structural_walk(body, [(s_tir.SBlockRealize, lambda _: found.append(True))])
    return bool(found)


def _is(value: Any, number: int) -> bool:
    return isinstance(value, prim.IntImm) and int(value.value) == number
