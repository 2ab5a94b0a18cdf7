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
from tvm.ir import prim
from tvm.tirx.script import builder as T

from .access import reads_along, step, vectorizable
from .emit import grid, in_lanes, index, local, put, serial, simplified, spread, vectorized, whole
from .guards import interval
from .machine import Machine
from .stages import Axis, Stage, constant, is_axis, loads, substitute, total
from .vector_math import prim_dtype

#: Below this many steps a parallel region costs more than it saves.
WORTH_THREADS = 1 << 16
#: Vectors that a sum along memory is gathered in, so that additions do not wait for each other.
_CHAINS = 4


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


def sums_along_memory(stage: Stage) -> bool:
    """Whether the innermost reduction, not the output's last axis, reads along memory."""
    if not stage.reductions:
        return False
    if not stage.spatial or constant(stage.spatial[-1].extent) == 1:
        return True
    inner = stage.spatial[-1].var
    return reads_along(stage.value, stage.reductions[-1].var) and not reads_along(
        stage.value, inner
    )


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
        grid(stage.spatial, lambda values: _sum_along_memory(_at(stage, values), machine))
    else:
        grid(
            stage.spatial[:-1],
            lambda values: _sum_across(_at(stage, values), machine),
        )


def _at(stage: Stage, values: dict[Any, Any]) -> Stage:
    """The stage with some of its axes at given places."""
    return Stage(
        stage.name,
        tuple(axis for axis in stage.axes if axis.var not in values),
        stage.buffer,
        tuple(substitute(position, values) for position in stage.indices),
        substitute(stage.value, values),
        stage.combine,
        stage.initial,
    )


def _store(stage: Stage, value: Any, values: dict[Any, Any]) -> None:
    indices = [substitute(position, values) for position in stage.indices]
    T.buffer_store(stage.buffer, value, indices)


def _elementwise(stage: Stage, machine: Machine) -> None:
    if not stage.spatial:
        _store(stage, stage.value, {})
        return
    *outer, inner = stage.spatial

    def line(values: dict[Any, Any]) -> None:
        at = _at(stage, values)
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
        _store(stage, substitute(value, place), place)

    extent = simplified(high - low)
    known = constant(extent)
    contiguous = step(stage.buffer, stage.indices, inner.var) == 1
    short = known is not None and known < machine.lanes
    if short or not contiguous or not vectorizable(value, inner.var):
        with serial(index(0), extent) as position:
            element(position)
    else:
        in_lanes(extent, machine.lanes, element)


def _sum_across(stage: Stage, machine: Machine) -> None:
    """One accumulator for each of several neighbouring outputs, in a vector."""
    inner = stage.spatial[-1]
    dtype = prim_dtype(stage.value)
    extent = constant(inner.extent)
    lanes = machine.lanes
    contiguous = step(stage.buffer, stage.indices, inner.var) == 1
    vector = contiguous and vectorizable_strided(stage.value, inner.var)

    def some(start: Any, count: int) -> None:
        sums = local(count, dtype)
        put(sums, count, tirx.Broadcast(stage.initial, count) if count > 1 else stage.initial)

        def gather(values: dict[Any, Any]) -> None:
            with vectorized(index(0), index(count)) as lane:
                term = substitute(stage.value, {**values, inner.var: start + lane})
                T.buffer_store(sums, stage.combine(sums[lane], term), [lane])

        grid(stage.reductions, gather)
        with vectorized(index(0), index(count)) as lane:
            _store(stage, sums[lane], {inner.var: start + lane})

    def one(start: Any) -> None:
        sums = local(1, dtype)
        T.buffer_store(sums, stage.initial, [index(0)])

        def gather(values: dict[Any, Any]) -> None:
            term = substitute(stage.value, {**values, inner.var: start})
            T.buffer_store(sums, stage.combine(sums[index(0)], term), [index(0)])

        grid(stage.reductions, gather)
        _store(stage, sums[index(0)], {inner.var: start})

    def scalars() -> None:
        with serial(index(0), inner.extent) as position:
            one(position)

    if not vector or (extent is not None and extent < lanes // 2):
        scalars()
        return
    if extent is not None and extent < lanes:
        some(index(0), extent)
        return
    with serial(index(0), inner.extent // lanes) as block:
        some(block * lanes, lanes)
    if extent is not None:
        if extent % lanes:
            some(index(extent - lanes), lanes)
        return
    with T.If(inner.extent < lanes):
        with T.Then():
            scalars()
        with T.Else(), T.If(inner.extent % lanes > 0), T.Then():
            some(inner.extent - lanes, lanes)


def vectorizable_strided(value: Any, variable: Any) -> bool:
    """As `vectorizable`, but accesses may skip elements, as those of strided windows do."""
    return vectorizable(value, variable) or all(
        step(load.source, load.indices, variable) is not None for load in loads(value)
    )


def _sum_along_memory(stage: Stage, machine: Machine) -> None:
    """One output: several vectors of partial results, then what is left over one by one."""
    *outer, inner = stage.reductions
    dtype = prim_dtype(stage.value)
    lanes = machine.lanes
    extent = constant(inner.extent)
    result = local(1, dtype)
    T.buffer_store(result, stage.initial, [index(0)])

    def gather(sums: Any, lane: Any, values: dict[Any, Any]) -> None:
        term = substitute(stage.value, values)
        T.buffer_store(sums, stage.combine(sums[lane], term), [lane])

    vector = vectorizable(stage.value, inner.var) and neutral(stage) is not None
    if not vector or (extent is not None and extent < lanes):
        grid(stage.reductions, lambda values: gather(result, index(0), values))
        _store(stage, result[index(0)], {})
        return
    wide = lanes * _CHAINS
    sums = local(wide, dtype)
    for chain in range(_CHAINS):
        put(sums, lanes, tirx.Broadcast(neutral(stage), lanes), chain * lanes)

    def line(values: dict[Any, Any]) -> None:
        with serial(index(0), inner.extent // wide) as block:
            for chain in range(_CHAINS):
                with vectorized(index(0), index(lanes)) as lane:
                    position = block * wide + chain * lanes + lane
                    gather(sums, lane + chain * lanes, {**values, inner.var: position})
        with (
            serial(inner.extent // wide * _CHAINS, inner.extent // lanes) as block,
            vectorized(index(0), index(lanes)) as lane,
        ):
            gather(sums, lane, {**values, inner.var: block * lanes + lane})
        with serial(inner.extent // lanes * lanes, inner.extent) as position:
            gather(result, index(0), {**values, inner.var: position})

    grid(outer, line)
    width = wide
    while width > 1:
        width //= 2
        if width == 1:
            T.buffer_store(sums, stage.combine(sums[index(0)], sums[index(1)]), [index(0)])
        else:
            put(sums, width, stage.combine(whole(sums, width), whole(sums, width, width)))
    gather_last = stage.combine(result[index(0)], sums[index(0)])
    _store(stage, gather_last, {})


def neutral(stage: Stage) -> Any:
    """What changes nothing when combined, None where the reduction has no such value."""
    dtype = prim_dtype(stage.value)
    if stage.combine is prim.Add:
        return tirx.const(0, dtype)
    if stage.combine is prim.Mul:
        return tirx.const(1, dtype)
    return stage.initial
