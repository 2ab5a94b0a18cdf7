"""Sums and extremes in vectors: along the elements written, or along the elements read.

Where neighbouring outputs read neighbouring elements, each lane of a vector is one output. Where
one output reads neighbouring elements, each lane gathers its share of them, in several vectors so
that additions do not wait for each other, and the lanes are combined at the end.
"""

from __future__ import annotations

from typing import Any

from tvm import tirx
from tvm.ir import prim
from tvm.tirx.script import builder as T

from ..stages.access import reads_along, step, vectorizable
from ..stages.program import Stage, constant, loads, substitute
from .emit import grid, index, local, put, serial, store, vectorized, whole
from .machine import Machine
from .vector_math import prim_dtype

#: Vectors that a sum along memory is gathered in.
_CHAINS = 4


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


def sum_across(stage: Stage, machine: Machine) -> None:
    """One accumulator for each of several neighbouring outputs, in a vector."""
    inner = stage.spatial[-1]
    dtype = prim_dtype(stage.value)
    extent = constant(inner.extent)
    lanes = machine.lanes
    contiguous = step(stage.buffer, stage.indices, inner.var) == 1
    vector = contiguous and _vectorizable_strided(stage.value, inner.var)

    def some(start: Any, count: int) -> None:
        sums = local(count, dtype)
        put(sums, count, tirx.Broadcast(stage.initial, count) if count > 1 else stage.initial)

        def gather(values: dict[Any, Any]) -> None:
            with vectorized(index(0), index(count)) as lane:
                term = substitute(stage.value, {**values, inner.var: start + lane})
                T.buffer_store(sums, stage.combine(sums[lane], term), [lane])

        grid(stage.reductions, gather)
        with vectorized(index(0), index(count)) as lane:
            store(stage, sums[lane], {inner.var: start + lane})

    def one(start: Any) -> None:
        sums = local(1, dtype)
        T.buffer_store(sums, stage.initial, [index(0)])

        def gather(values: dict[Any, Any]) -> None:
            term = substitute(stage.value, {**values, inner.var: start})
            T.buffer_store(sums, stage.combine(sums[index(0)], term), [index(0)])

        grid(stage.reductions, gather)
        store(stage, sums[index(0)], {inner.var: start})

    def scalars() -> None:
        with serial(index(0), inner.extent) as position:
            one(position)

    if not vector or extent == 1:
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


def _vectorizable_strided(value: Any, variable: Any) -> bool:
    """As `vectorizable`, but accesses may skip elements, as those of strided windows do."""
    return vectorizable(value, variable) or all(
        step(load.source, load.indices, variable) is not None for load in loads(value)
    )


def sum_along_memory(stage: Stage, machine: Machine) -> None:
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

    vector = vectorizable(stage.value, inner.var) and _neutral(stage) is not None
    if not vector or (extent is not None and extent < lanes):
        grid(stage.reductions, lambda values: gather(result, index(0), values))
        store(stage, result[index(0)], {})
        return
    wide = lanes * _CHAINS
    sums = local(wide, dtype)
    for chain in range(_CHAINS):
        put(sums, lanes, tirx.Broadcast(_neutral(stage), lanes), chain * lanes)

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
    store(stage, gather_last, {})


def _neutral(stage: Stage) -> Any:
    """What changes nothing when combined, None where the reduction has no such value."""
    dtype = prim_dtype(stage.value)
    if stage.combine is prim.Add:
        return tirx.const(0, dtype)
    if stage.combine is prim.Mul:
        return tirx.const(1, dtype)
    return stage.initial
