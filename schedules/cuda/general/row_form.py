"""Chains of stages over the same rows: which they are, and in one set of variables.

A softmax, a norm, a quantization per token are elementwise stages over (rows, columns), reductions
over the columns, and stages with one value per row. Where every stage reads the others' results
only in its own row and column, one kernel computes a row from beginning to end.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Sequence
from typing import Any

import tvm_ffi
from tvm import ir, tirx

from ...stages.access import reads_along, step
from ...stages.program import Axis, Stage, inlined, is_one, loads
from .launch import index, with_loads
from .numbers import dtype_of
from .vectors import unconditional


class Kind(enum.Enum):
    """What a stage is within a row."""

    ELEMENT = "a value for each column"
    REDUCTION = "a value gathered over the columns"
    SCALAR = "a value for the row"


@dataclasses.dataclass(frozen=True)
class Rows:
    """Stages in order, all over the same variables.

    Attributes:
        stages: with `rows` (and `columns`) as their axes.
        kinds: of each.
        rows: axes, none of extent 1.
        columns: axes, none of extent 1; the last runs along memory.
    """

    stages: tuple[Stage, ...]
    kinds: tuple[Kind, ...]
    rows: tuple[Axis, ...]
    columns: tuple[Axis, ...]

    def needed(self, stage: Stage) -> bool:
        """Whether another stage reads what this one computes."""
        return any(
            load.source.same_as(stage.buffer)
            for other in self.stages
            for load in loads(other.value)
        )


def read_rows(stages: Sequence[Stage]) -> Rows | None:
    """The stages as a chain over rows, or None where they are none."""
    first = next((stage for stage in stages if stage.reductions), None)
    if first is None:
        return None
    rows, columns = _wide(first.spatial), _wide(first.reductions)
    if not columns or not _along_memory(first, rows, columns):
        return None
    kinds: list[Kind] = []
    same: list[Stage] = []
    for stage in stages:
        kind = _kind(stage, rows, columns)
        if kind is None or not stage.writes_in_order():
            return None
        kinds.append(kind)
        same.append(_over(stage, kind, rows, columns))
    result = Rows(tuple(same), tuple(kinds), tuple(rows), tuple(columns))
    return result if _reads_in_place(result) else None


def _wide(axes: Sequence[Axis]) -> list[Axis]:
    return [axis for axis in axes if not is_one(axis.extent)]


def _along_memory(stage: Stage, rows: Sequence[Axis], columns: Sequence[Axis]) -> bool:
    """Whether neighbouring terms, not neighbouring results, are neighbours in memory."""
    along = reads_along(stage.value, columns[-1].var)
    return along and not (rows and reads_along(stage.value, rows[-1].var))


def _kind(stage: Stage, rows: Sequence[Axis], columns: Sequence[Axis]) -> Kind | None:
    spatial, reduced = _wide(stage.spatial), _wide(stage.reductions)
    if stage.reductions:
        return Kind.REDUCTION if _alike(spatial, rows) and _alike(reduced, columns) else None
    if _alike(spatial, [*rows, *columns]):
        return Kind.ELEMENT
    return Kind.SCALAR if _alike(spatial, rows) else None


def _alike(axes: Sequence[Axis], others: Sequence[Axis]) -> bool:
    return len(axes) == len(others) and all(
        tvm_ffi.structural_equal(a.extent, b.extent) for a, b in zip(axes, others, strict=True)
    )


def _over(stage: Stage, kind: Kind, rows: Sequence[Axis], columns: Sequence[Axis]) -> Stage:
    """The stage over the chain's axes; axes of extent 1 are at 0."""
    own = [*_wide(stage.spatial), *_wide(stage.reductions)]
    theirs = rows if kind is Kind.SCALAR else [*rows, *columns]
    values = {axis.var: index(0) for axis in stage.axes}
    values |= {axis.var: other.var for axis, other in zip(own, theirs, strict=True)}
    moved = stage.at(values)
    axes = [Axis(axis.var, axis.extent, False) for axis in rows]
    if kind is not Kind.SCALAR:
        axes += [Axis(axis.var, axis.extent, kind is Kind.REDUCTION) for axis in columns]
    return dataclasses.replace(moved, axes=tuple(axes))


def _reads_in_place(chain: Rows) -> bool:
    kind_of = dict(zip((stage.buffer for stage in chain.stages), chain.kinds, strict=True))
    rows = [axis.var for axis in chain.rows]
    everything = [*rows, *(axis.var for axis in chain.columns)]
    for stage, kind in zip(chain.stages, chain.kinds, strict=True):
        for load in loads(stage.value):
            source = kind_of.get(load.source)
            if source is None:
                continue
            if source is Kind.ELEMENT and kind is Kind.SCALAR:
                return False
            expected = everything if source is Kind.ELEMENT else rows
            extents = load.source.ty.shape
            place = [i for i, e in zip(load.indices, extents, strict=True) if not is_one(e)]
            if len(place) != len(expected) or not all(
                isinstance(i, ir.Var) and i.same_as(var)
                for i, var in zip(place, expected, strict=True)
            ):
                return False
    return True


def recomputing(chain: Rows, private: Sequence[Any]) -> Rows:
    """The chain with every stage computing itself what it needs of columns.

    Rows that are too long for registers are read again instead of being written and read.
    """
    stages = list(chain.stages)
    kept: list[tuple[Stage, Kind]] = []
    for number, kind in enumerate(chain.kinds):
        stage = stages[number]
        if kind is not Kind.ELEMENT:
            kept.append((stage, kind))
            continue
        producer = _indexed_by_place(stage)
        for later in range(number + 1, len(stages)):
            value = inlined(stages[later].value, producer)
            stages[later] = dataclasses.replace(stages[later], value=value)
        if not any(stage.buffer.same_as(buffer) for buffer in private):
            kept.append((stage, kind))
    return dataclasses.replace(
        chain, stages=tuple(s for s, _ in kept), kinds=tuple(k for _, k in kept)
    )


def _indexed_by_place(stage: Stage) -> Stage:
    """The stage with an axis for each index of its buffer, as `inlined` needs it."""
    axes = [
        Axis(i, e, False) if isinstance(i, ir.Var) else Axis(tirx.Var("one", "int64"), e, False)
        for i, e in zip(stage.indices, stage.buffer.ty.shape, strict=True)
    ]
    return dataclasses.replace(stage, axes=tuple(axes))


def holding(chain: Rows) -> Rows:
    """The chain with a stage in front for each input that several stages read column by column."""
    inner = chain.columns[-1].var
    readers = [
        (stage, load)
        for stage, kind in zip(chain.stages, chain.kinds, strict=True)
        if kind is not Kind.SCALAR
        for load in _distinct(unconditional(stage.value))
        if step(load.source, load.indices, inner) == 1
        and not any(load.source.same_as(other.buffer) for other in chain.stages)
    ]
    seen: list[ir.TensorLoad] = []
    front: list[Stage] = []
    axes = tuple(Axis(axis.var, axis.extent, False) for axis in (*chain.rows, *chain.columns))
    stages = list(chain.stages)
    for _, load in readers:
        if any(tvm_ffi.structural_equal(load, other) for other in seen):
            continue
        seen.append(load)
        if sum(bool(tvm_ffi.structural_equal(load, other)) for _, other in readers) < 2:
            continue
        copy = tirx.decl_buffer([a.extent for a in axes], dtype_of(load.source), name="held")
        places = tuple(axis.var for axis in axes)
        front.append(Stage("held", axes, copy, places, load))
        stages = [_reading(stage, load, copy, places) for stage in stages]
    return dataclasses.replace(
        chain,
        stages=(*front, *stages),
        kinds=(*(Kind.ELEMENT for _ in front), *chain.kinds),
    )


def _distinct(found: Sequence[ir.TensorLoad]) -> list[ir.TensorLoad]:
    result: list[ir.TensorLoad] = []
    for load in found:
        if not any(tvm_ffi.structural_equal(load, other) for other in result):
            result.append(load)
    return result


def _reading(stage: Stage, load: ir.TensorLoad, copy: Any, places: tuple[Any, ...]) -> Stage:
    def replace(other: ir.TensorLoad) -> Any:
        same = tvm_ffi.structural_equal(load, other)
        return tirx.BufferLoad(copy, list(places)) if same else other

    return dataclasses.replace(stage, value=with_loads(stage.value, replace))


__all__ = ["Kind", "Rows", "holding", "read_rows", "recomputing"]
