"""Elements that are read along one axis and written along another, through shared memory.

A thread per output element would read one element out of each 32-byte sector it fetches. Here a
block takes a square of both axes: it is read with neighbouring threads along the input's memory and
written with neighbouring threads along the output's. Lines of the square are one element longer
than they are used, so that a column of it lies in 32 different banks.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import tvm_ffi
from tvm import ir, tirx
from tvm.tirx.script import builder as T

from ...stages.access import step
from ...stages.program import Axis, Stage, constant, is_one, substitute, total
from .flat import emit_element
from .launch import (
    barrier,
    bound,
    ceildiv,
    fused,
    index,
    launch,
    registers,
    shared_memory,
    simplified,
    unrolled,
    when,
    with_loads,
)
from .numbers import cast, dtype_of, widen, working
from .vectors import unconditional

_SIDE, _LINES = 32, 8
#: Along shorter axes a square would be mostly empty.
_SHORTEST = 16


@dataclasses.dataclass(frozen=True)
class Turned:
    """An elementwise stage whose read and write run along different axes.

    Attributes:
        stage: what is computed.
        load: the read that runs along `along`.
        along: an axis of the stage.
        inner: the axis that the output runs along.
    """

    stage: Stage
    load: ir.TensorLoad
    along: Axis
    inner: Axis


def read_turned(stage: Stage) -> Turned | None:
    """The stage as a transposition, or None."""
    wide = [axis for axis in stage.spatial if not is_one(axis.extent)]
    if stage.reductions or len(wide) < 2 or _is_short(wide[-1]):
        return None
    inner = wide[-1]
    if step(stage.buffer, stage.indices, inner.var) != 1:
        return None
    for load in unconditional(stage.value):
        if step(load.source, load.indices, inner.var) == 1:
            return None
    for load in unconditional(stage.value):
        for axis in wide[:-1]:
            if not _is_short(axis) and step(load.source, load.indices, axis.var) == 1:
                return Turned(stage, load, axis, inner)
    return None


def _is_short(axis: Axis) -> bool:
    extent = constant(axis.extent)
    return extent is not None and extent < _SHORTEST


def emit_turned(turned: Turned, after: Sequence[Stage], private: Sequence[Any]) -> None:
    """The kernel of a transposition and of elementwise stages behind it.

    Args:
        turned: what `read_turned` found.
        after: stages over the same elements, reading it at their own place.
        private: buffers that nothing outside reads.
    """
    stage, along, inner = turned.stage, turned.along, turned.inner
    outer = [axis for axis in stage.spatial if axis is not along and axis is not inner]
    down, across = ceildiv(along.extent, _SIDE), ceildiv(inner.extent, _SIDE)
    batch = total([axis.extent for axis in outer])
    with launch(simplified(batch * down * across), _SIDE, _LINES) as (block, x, y):
        tile = T.Bind(block // across)
        column = T.Bind(block % across * _SIDE)
        row = T.Bind(tile % down * _SIDE)
        places = bound(fused(outer, tile // down))
        square = shared_memory((_SIDE, _SIDE + 1), dtype_of(turned.load.source))

        def read(n: Any) -> None:
            line = y + n * _LINES
            place = {**places, along.var: row + x, inner.var: column + line}
            with when(tirx.all(row + x < along.extent, column + line < inner.extent)):
                T.buffer_store(square, substitute(turned.load, place), [line, x])

        unrolled(_SIDE // _LINES, read)
        barrier()
        dtype = working(dtype_of(stage.buffer))

        def write(n: Any) -> None:
            line = y + n * _LINES
            place = {**places, along.var: row + line, inner.var: column + x}

            def replace(load: ir.TensorLoad) -> Any:
                same = tvm_ffi.structural_equal(load, turned.load)
                return tirx.BufferLoad(square, [x, line]) if same else load

            with when(tirx.all(row + line < along.extent, column + x < inner.extent)):
                held = registers(1, dtype)
                value = substitute(widen(with_loads(stage.value, replace)), place)
                T.buffer_store(held, cast(dtype, value), [index(0)])
                emit_element(stage, after, place, held, private)

        unrolled(_SIDE // _LINES, write)
