"""Chains of elementwise operators and reductions, one row at a time.

Softmax, norms, means, poolings and everything elementwise are stages with the same outer axes. One
parallel loop runs over those; inside, each stage works on its row, so intermediates are one row
long and stay in the cache, and all inner loops are vectors: along the elements written, or, where
the sum runs along memory, along the sum with several accumulators.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tvm_ffi
from tvm import ir, tirx
from tvm.tirx.script import builder as T

from ..stages.access import step, vectorizable
from ..stages.program import Axis, Stage, constant, is_axis, loads, substitute, total
from .emit import grid, in_lanes, index, serial, simplified, spread, store
from .guards import interval
from .machine import Machine
from .reductions import sum_across, sum_along_memory, sums_along_memory

#: Below this many steps a parallel region costs more than it saves.
WORTH_THREADS = 1 << 16


def common_axes(stages: Sequence[Stage]) -> int:
    """How many leading axes the stages share, so that one loop over them can hold them all.

    A stage may read another's result only at its own place along these axes.
    """
    shared = min(len(stage.spatial) for stage in stages)
    deepest = max(len(stage.axes) for stage in stages)
    shared = min(shared, deepest - 1)
    for stage in stages:
        if stage.reductions and not sums_along_memory(stage):
            shared = min(shared, len(stage.spatial) - 1)
    written = [stage.buffer for stage in stages]
    for stage in stages:
        axes = stage.spatial
        places = [stage.indices] + [
            tuple(load.indices)
            for load in loads(stage.value)
            if any(load.source.same_as(buffer) for buffer in written)
        ]
        for number in range(max(shared, 0)):
            same = tvm_ffi.structural_equal(axes[number].extent, stages[0].spatial[number].extent)
            if not same or any(
                len(place) <= number or not is_axis(place[number], axes[number]) for place in places
            ):
                shared = number
                break
    return max(shared, 0)


def emit_rows(
    stages: Sequence[Stage], shared: int, private: Sequence[Any], machine: Machine
) -> None:
    """Emit the stages under one loop over their first `shared` axes.

    Args:
        stages: in order; `shared` is at most what `common_axes` says.
        shared: number of outer axes.
        private: intermediates that only these stages use; they become one row.
        machine: for the vector length.
    """
    outer = stages[0].spatial[:shared]
    steps = [constant(total([axis.extent for axis in stage.axes])) for stage in stages]
    size = None if None in steps else sum(step for step in steps if step is not None)
    parallel = size is None or size >= WORTH_THREADS

    def row(values: dict[Any, Any]) -> None:
        rows: dict[Any, Any] = {}
        for buffer in private:
            shape = list(buffer.ty.shape)[shared:] or [index(1)]
            rows[buffer] = T.alloc_buffer(shape, str(buffer.ty.dtype), layout=None)
        for stage in stages:
            here = {
                own.var: values[axis.var]
                for own, axis in zip(stage.spatial[:shared], outer, strict=True)
            }
            _emit_stage(_in_row(stage, here, rows, shared), machine)

    spread(outer, parallel, row)


def _in_row(stage: Stage, here: dict[Any, Any], rows: dict[Any, Any], shared: int) -> Stage:
    """The stage at one place of the outer axes, reading and writing one-row intermediates."""

    def moved(indices: Sequence[Any]) -> list[Any]:
        return list(indices)[shared:] or [index(0)]

    def load(node: ir.TensorLoad) -> Any:
        row = rows.get(node.source)
        return node if row is None else tirx.BufferLoad(row, moved(node.indices))

    value = tvm_ffi.structural_map(substitute(stage.value, here), [(ir.TensorLoad, load)])
    indices = [substitute(position, here) for position in stage.indices]
    buffer = stage.buffer
    if buffer in rows:
        buffer, indices = rows[buffer], moved(indices)
    axes = tuple(axis for axis in stage.axes if axis.var not in here)
    return Stage(stage.name, axes, buffer, tuple(indices), value, stage.combine, stage.initial)


def _emit_stage(stage: Stage, machine: Machine) -> None:
    if not stage.reductions:
        _elementwise(stage, machine)
    elif not stage.spatial or sums_along_memory(stage):
        grid(stage.spatial, lambda values: sum_along_memory(stage.at(values), machine))
    else:
        grid(
            stage.spatial[:-1],
            lambda values: sum_across(stage.at(values), machine),
        )


def _elementwise(stage: Stage, machine: Machine) -> None:
    if not stage.spatial:
        store(stage, stage.value, {})
        return
    *outer, inner = stage.spatial

    def line(values: dict[Any, Any]) -> None:
        at = stage.at(values)
        parts = interval(at.value, inner.var)
        if parts is None:
            _run(at, at.value, inner, index(0), inner.extent, machine)
            return
        low = index(0) if parts.low is None else tirx.max(parts.low, index(0))
        low = T.Bind(simplified(tirx.min(low, inner.extent)))
        high = inner.extent if parts.high is None else tirx.min(parts.high, inner.extent)
        high = T.Bind(simplified(tirx.max(high, low)))
        _run(at, parts.outside, inner, index(0), low, machine)
        _run(at, parts.inside, inner, low, high, machine)
        _run(at, parts.outside, inner, high, inner.extent, machine)

    grid(outer, line)


def _run(stage: Stage, value: Any, inner: Axis, low: Any, high: Any, machine: Machine) -> None:
    """The elements from `low` to `high` along the innermost axis."""

    def element(position: Any) -> None:
        place = {inner.var: low + position}
        store(stage, substitute(value, place), place)

    extent = simplified(high - low)
    known = constant(extent)
    contiguous = step(stage.buffer, stage.indices, inner.var) == 1
    short = known is not None and known < machine.lanes
    if short or not contiguous or not vectorizable(value, inner.var):
        with serial(index(0), extent) as position:
            element(position)
    else:
        in_lanes(extent, machine.lanes, element)
