"""A thread per output element, or per vector of them.

Elementwise operators, gathers, pads, resizes, windows of pooling, and reductions whose neighbours
in memory are neighbouring outputs: threads next to each other read addresses next to each other. A
group is computed at once when its stages run over the same elements and read each other's results
only at their own place.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import tvm_ffi
from tvm import ir, tirx
from tvm.tirx.script import builder as T

from ...stages.program import (
    Axis,
    Stage,
    constant,
    is_axis,
    is_one,
    loads,
    substitute,
    total,
)
from .launch import (
    THREADS,
    bound,
    ceildiv,
    fused,
    index,
    launch,
    registers,
    serial_grid,
    simplified,
    when,
    with_loads,
)
from .numbers import cast, dtype_of, gathering, widen, working
from .vectors import elements, lanes, rounded, store_elements


def is_flat(stages: Sequence[Stage]) -> bool:
    """Whether the stages run over the same elements, each reading the others at its own."""
    first = stages[0].spatial
    for stage in stages:
        axes = stage.spatial
        if len(axes) != len(first) or not all(
            tvm_ffi.structural_equal(a.extent, b.extent) for a, b in zip(axes, first, strict=True)
        ):
            return False
        if len(stages) > 1 and not stage.writes_in_order():
            return False
        for load in loads(stage.value):
            if any(load.source.same_as(other.buffer) for other in stages) and not (
                len(load.indices) == len(axes)
                and all(is_axis(i, axis) for i, axis in zip(load.indices, axes, strict=True))
            ):
                return False
    return True


def emit_flat(stages: Sequence[Stage], private: Sequence[Any]) -> None:
    """One kernel for stages of which `is_flat` holds.

    Args:
        stages: in order.
        private: buffers that nothing outside reads; they stay in registers.
    """
    stages = [_on(stages[0].spatial, stage) for stage in stages]
    axes = list(stages[0].spatial)
    wide = [axis for axis in axes if not is_one(axis.extent)]
    count = 1
    inner = wide[-1] if wide else Axis(tirx.Var("none", "int64"), index(1), False)
    if wide and not any(stage.reductions for stage in stages):
        count = lanes(stages, [inner.var] * len(stages), inner.extent)
    outer = [
        Axis(axis.var, simplified(axis.extent // count), False) if axis is inner else axis
        for axis in axes
    ]
    size = simplified(total([axis.extent for axis in outer]))
    known = constant(size)
    threads = THREADS if known is None or known >= THREADS else -(-known // 32) * 32
    with launch(ceildiv(size, threads), threads) as (block, thread):
        position = T.Bind(block * threads + thread)
        with when(None if known is not None and known % threads == 0 else position < size):
            places = bound(fused(outer, position))
            start = places.pop(inner.var, index(0)) * count
            _emit_at(stages, places, inner, start, count, private, {})


def emit_element(
    first: Stage,
    after: Sequence[Stage],
    places: Mapping[Any, Any],
    held: Any,
    private: Sequence[Any],
) -> None:
    """Store one element that a register holds, and what elementwise stages make of it.

    Args:
        first: what computed it.
        after: stages over the same elements.
        places: of the axes of `first`; those of extent 1 may lack.
        held: the register.
        private: buffers that nothing outside reads.
    """
    stages = [_on(first.spatial, stage) for stage in (first, *after)]
    here = {axis.var: places.get(axis.var, index(0)) for axis in first.spatial}
    none = Axis(tirx.Var("none", "int64"), index(1), False)
    _emit_at(stages, here, none, index(0), 1, private, {first.buffer: held})


def _on(axes: Sequence[Axis], stage: Stage) -> Stage:
    """The stage over the axes of another one."""
    values = {own.var: axis.var for own, axis in zip(stage.spatial, axes, strict=True)}
    return Stage(
        stage.name,
        (*axes, *stage.reductions),
        stage.buffer,
        tuple(substitute(i, values) for i in stage.indices),
        substitute(stage.value, values),
        stage.combine,
        stage.initial,
    )


def _emit_at(
    stages: Sequence[Stage],
    places: dict[Any, Any],
    inner: Axis,
    start: Any,
    count: int,
    private: Sequence[Any],
    given: Mapping[Any, Any],
) -> None:
    """The elements from `start` on along the innermost axis; what is `given` is in registers."""
    known: dict[Any, Any] = {}
    for stage in stages:
        here = stage.at(places)
        hidden = any(stage.buffer.same_as(buffer) for buffer in private)
        needed = any(
            load.source.same_as(stage.buffer) for other in stages for load in loads(other.value)
        )
        if stage.buffer in given:
            held = given[stage.buffer]
        elif stage.reductions:
            held = gathered(here, {inner.var: start}, known)
        else:
            held = registers(count, working(dtype_of(stage.buffer)))
            value = _marked(widen(here.value), known)
            stored = dtype_of(stage.buffer) if needed and not hidden else dtype_of(held)
            elements(value, inner.var, start, count, _into(held, known, stored))
        if needed:
            known[stage.buffer] = held
        if not hidden:
            result, first = rounded(held, dtype_of(stage.buffer), count, index(0))
            store_elements(here, inner.var, start, count, result, first)


def _into(held: Any, known: dict[Any, Any], dtype: str) -> Callable[[Any, Any], None]:
    """What stores elements, rounded to a type, to registers, reading others' from theirs."""

    def one(lane: Any, element: Any) -> None:
        def replace(load: ir.TensorLoad) -> Any:
            other = known.get(load.source)
            return load if other is None else tirx.BufferLoad(other, [lane])

        value = cast(dtype_of(held), cast(dtype, with_loads(element, replace)))
        T.buffer_store(held, value, [lane])

    return one


def _marked(value: Any, known: dict[Any, Any]) -> Any:
    """The value with reads of what is in registers made independent of the place."""

    def replace(load: ir.TensorLoad) -> Any:
        if load.source not in known:
            return load
        return tirx.BufferLoad(load.source, [index(0) for _ in load.indices])

    return with_loads(value, replace)


def gathered(stage: Stage, places: dict[Any, Any], known: dict[Any, Any]) -> Any:
    """A reduction by one thread, in a register.

    Args:
        stage: all of its axes but the reductions' substituted or in `places`.
        places: of the remaining axes.
        known: by buffer the register that holds its element here.
    """

    def replace(load: ir.TensorLoad) -> Any:
        other = known.get(load.source)
        return load if other is None else tirx.BufferLoad(other, [index(0)])

    term = with_loads(widen(stage.value), replace)
    dtype = gathering(dtype_of(stage.buffer))
    held = registers(1, dtype)
    T.buffer_store(held, cast(dtype, widen(stage.initial)), [index(0)])

    def add(values: dict[Any, Any]) -> None:
        element = cast(dtype, substitute(term, {**places, **values}))
        T.buffer_store(held, stage.combine(held[index(0)], element), [index(0)])

    serial_grid(stage.reductions, add)
    return held
