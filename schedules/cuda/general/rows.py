"""One kernel for a chain of stages over rows: a few lanes, a warp or a block for each row.

A row of known length stays in registers from its first read to its last write, each thread keeping
the same columns throughout. A row of unknown or great length is read again by every stage that
needs it; it comes from the cache then.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from tvm import ir, tirx
from tvm.tirx.script import builder as T

from ...stages.program import Axis, Stage, constant, total
from .combine import WARP, across_lanes, neutral
from .launch import (
    bound,
    ceildiv,
    fused,
    index,
    launch,
    registers,
    simplified,
    when,
    with_loads,
)
from .numbers import as_stored, cast, dtype_of, gathering, widen, working
from .row_form import Kind, Rows, holding, recomputing
from .vectors import elements, lanes, rounded, store_elements

#: Threads of a block that handles several rows.
_BLOCK = 128
#: Threads for a row of unknown length.
_UNKNOWN = 128
#: Vectors of a row that one warp handles, and that a thread of a block should.
_WARP_VECTORS, _BLOCK_VECTORS = 8, 4
_MOST_THREADS = 1024
#: 32-bit registers of a thread for the values of its columns.
_REGISTERS = 64


@dataclasses.dataclass(frozen=True)
class Shape:
    """How a chain is spread over threads.

    Attributes:
        vector: columns that are read and written at once.
        lanes: threads of a row.
        rows: of a block.
        units: vectors in a row, an expression.
        steps: of a thread over its row: a number where everything is known, else an expression.
    """

    vector: int
    lanes: int
    rows: int
    units: Any
    steps: Any

    @property
    def is_held(self) -> bool:
        """Whether a thread's number of columns is known."""
        return isinstance(self.steps, int)


def shape_of(chain: Rows) -> Shape:
    """How to spread a chain."""
    wide = [
        stage
        for stage, kind in zip(chain.stages, chain.kinds, strict=True)
        if kind is not Kind.SCALAR
    ]
    inner = chain.columns[-1]
    vector = lanes(wide, [inner.var] * len(wide), inner.extent)
    units = simplified(total([axis.extent for axis in chain.columns]) // vector)
    known = constant(units)
    if known is None:
        return Shape(vector, _UNKNOWN, 1, units, ceildiv(units, _UNKNOWN))
    if known <= WARP * _WARP_VECTORS:
        count = min(WARP, 1 << max(0, known - 1).bit_length())
        rows = constant(simplified(total([axis.extent for axis in chain.rows])))
        together = _BLOCK // count
        while rows is not None and together > max(rows, WARP // count) and together > 1:
            together //= 2
        return Shape(vector, count, max(together, WARP // count), units, -(-known // count))
    wanted = -(-known // _BLOCK_VECTORS)
    count = min(_MOST_THREADS, -(-wanted // WARP) * WARP)
    return Shape(vector, count, 1, units, -(-known // count))


def emit_rows(chain: Rows, private: Sequence[Any]) -> None:
    """The kernel of a chain.

    Args:
        chain: what `read_rows` found.
        private: buffers that nothing outside reads.
    """
    shape = shape_of(chain)
    held = holding(chain)
    if shape.is_held and _pressure(held, shape) <= _REGISTERS:
        front = [stage.buffer for stage in held.stages[: len(held.stages) - len(chain.stages)]]
        chain, private = held, [*private, *front]
    else:
        chain = recomputing(chain, private)
    count = simplified(total([axis.extent for axis in chain.rows]))
    known = constant(count)
    exact = shape.rows == 1 or (known is not None and known % shape.rows == 0)
    blocks = ceildiv(count, shape.rows)
    threads = (shape.lanes,) if shape.rows == 1 else (shape.lanes, shape.rows)
    with launch(blocks, *threads) as (block, lane, *own):
        row = block if not own else T.Bind(block * shape.rows + own[0])
        # All lanes of a warp have to take part in shuffles: what is over computes the last row.
        inside = None if exact else row < count
        place = row if exact else T.Bind(tirx.min(row, count - 1))
        _Row(chain, shape, private, bound(fused(chain.rows, place)), lane, inside).emit()


def _pressure(chain: Rows, shape: Shape) -> int:
    kept = sum(
        kind is Kind.ELEMENT and chain.needed(stage)
        for stage, kind in zip(chain.stages, chain.kinds, strict=True)
    )
    return kept * shape.steps * shape.vector * (2 if shape.lanes > _MOST_THREADS // 2 else 1)


class _Row:
    """The statements of one thread."""

    def __init__(
        self,
        chain: Rows,
        shape: Shape,
        private: Sequence[Any],
        places: dict[Any, Any],
        lane: Any,
        inside: Any,
    ) -> None:
        self.chain = chain
        self.shape = shape
        self.private = private
        self.places = places
        self.lane = lane
        self.inside = inside
        self.columns: dict[Any, Any] = {}
        self.scalars: dict[Any, Any] = {}

    def emit(self) -> None:
        for stage, kind in zip(self.chain.stages, self.chain.kinds, strict=True):
            here = dataclasses.replace(stage.at(self.places), value=self._value(stage))
            if kind is Kind.ELEMENT:
                self._element(here)
            elif kind is Kind.REDUCTION:
                self._reduction(here)
            else:
                self._scalar(here)

    def _value(self, stage: Stage) -> Any:
        """The formula in this row, in its working type; registers are marked by index 0."""

        def replace(load: ir.TensorLoad) -> Any:
            if load.source in self.scalars:
                return tirx.BufferLoad(self.scalars[load.source], [index(0)])
            if load.source in self.columns:
                return tirx.BufferLoad(load.source, [index(0) for _ in load.indices])
            return load

        return with_loads(widen(stage.at(self.places).value), replace)

    def _steps(self, write: Callable[[Any, dict[Any, Any], Any], None]) -> None:
        """``write(step, outer columns, start along memory)`` for all of this thread's vectors."""
        *outer, inner = self.chain.columns
        shape = self.shape
        axes = [*outer, Axis(inner.var, simplified(inner.extent // shape.vector), False)]
        known = constant(shape.units)
        whole = known is not None and shape.is_held and known == shape.steps * shape.lanes

        def step(number: Any) -> None:
            unit = number * shape.lanes + self.lane
            with when(None if whole else unit < shape.units):
                values = fused(axes, unit)
                start = values.pop(inner.var) * shape.vector
                write(number, bound(values), simplified(start))

        if shape.steps == 1:
            step(index(0))
        elif shape.is_held and shape.steps <= _REGISTERS:
            with T.unroll(index(0), index(shape.steps)) as number:
                step(number)
        else:
            count = index(shape.steps) if shape.is_held else shape.steps
            with T.serial(index(0), count) as number:
                step(number)

    def _elements(
        self, stage: Stage, number: Any, values: dict[Any, Any], start: Any, write: Any
    ) -> None:
        """``write(lane, element)`` for one vector of columns."""
        vector = self.shape.vector

        def one(lane: Any, element: Any) -> None:
            def replace(load: ir.TensorLoad) -> Any:
                held = self.columns.get(load.source)
                return load if held is None else tirx.BufferLoad(held, [number * vector + lane])

            write(lane, with_loads(element, replace))

        here = stage.at(values)
        elements(here.value, self.chain.columns[-1].var, start, vector, one)

    def _element(self, stage: Stage) -> None:
        kept = self.shape.is_held and self.chain.needed(stage)
        vector = self.shape.vector
        count = vector * self.shape.steps if kept else vector
        held = registers(count, working(dtype_of(stage.buffer)))
        hidden = any(stage.buffer.same_as(buffer) for buffer in self.private)

        def step(number: Any, values: dict[Any, Any], start: Any) -> None:
            offset = number * vector if kept else index(0)

            def write(lane: Any, element: Any) -> None:
                if kept and not hidden:
                    element = as_stored(dtype_of(stage.buffer), element)
                T.buffer_store(held, cast(dtype_of(held), element), [offset + lane])

            self._elements(stage, number, values, start, write)
            if not hidden:
                inner = self.chain.columns[-1].var
                result, first = rounded(held, dtype_of(stage.buffer), vector, offset)
                with when(self.inside):
                    store_elements(stage.at(values), inner, start, vector, result, first)

        self._steps(step)
        if kept:
            self.columns[stage.buffer] = held

    def _reduction(self, stage: Stage) -> None:
        dtype = gathering(dtype_of(stage.buffer))
        held = registers(1, dtype)
        initial = cast(dtype, widen(stage.initial))
        T.buffer_store(held, neutral(stage.combine, initial, dtype), [index(0)])

        def step(number: Any, values: dict[Any, Any], start: Any) -> None:
            def write(_lane: Any, element: Any) -> None:
                sum_so_far = stage.combine(held[index(0)], cast(dtype, element))
                T.buffer_store(held, sum_so_far, [index(0)])

            self._elements(stage, number, values, start, write)

        self._steps(step)
        across_lanes(held, stage.combine, self.shape.lanes, self.lane)
        start = simplified(initial)
        if not _is_neutral(stage.combine, start):
            T.buffer_store(held, stage.combine(held[index(0)], start), [index(0)])
        self._keep(stage, held[index(0)])

    def _scalar(self, stage: Stage) -> None:
        self._keep(stage, stage.value)

    def _keep(self, stage: Stage, value: Any) -> None:
        """A value of the whole row, which each of its threads has."""
        held = registers(1, working(dtype_of(stage.buffer)))
        hidden = any(stage.buffer.same_as(buffer) for buffer in self.private)
        value = value if hidden else as_stored(dtype_of(stage.buffer), value)
        T.buffer_store(held, cast(dtype_of(held), value), [index(0)])
        self.scalars[stage.buffer] = held
        if hidden:
            return
        first = self.lane == 0
        with when(first if self.inside is None else tirx.all(first, self.inside)):
            result = cast(dtype_of(stage.buffer), held[index(0)])
            T.buffer_store(stage.buffer, result, list(stage.indices))


def _is_neutral(combine: Any, initial: Any) -> bool:
    same = neutral(combine, initial, dtype_of(initial))
    return same is initial or float(getattr(initial, "value", float("nan"))) == float(same.value)
