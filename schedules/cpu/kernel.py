"""The product's kernel: accumulators in registers, columns in packed panels, rows in blocks.

For each task (one product of a batch, one panel of columns, one block of rows) the inner loop
multiplies `rows` broadcast elements of the left operand with `vectors` vectors of the panel. The
finished tile goes through a small buffer in the first cache to the epilogue, which is ordinary
vectorized code, so whatever follows the product costs no pass over memory.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import tvm_ffi
from tvm import ir, tirx
from tvm.tirx.script import builder as T

from ..stages.access import step, vectorizable
from ..stages.program import Stage, constant, substitute
from .columns import columns_of
from .emit import (
    at,
    fused,
    grid,
    in_lanes,
    index,
    linear,
    local,
    put,
    serial,
    shared,
    simplified,
    whole,
)
from .machine import Machine
from .product import Epilogue, Product
from .tile import Tile

#: Accumulators needed so that a multiply-add need not wait for the one before.
_INDEPENDENT = 8


@dataclasses.dataclass(frozen=True)
class Kernel:
    """A product with everything decided.

    Attributes:
        product: what is computed.
        after: what follows element by element, if anything.
        tile: sizes.
        machine: for the vector length.
        panels: the right operand packed at compile time, [panels, summed, columns] flat; None where
            each task packs its own panel.
        parallel: whether tasks are shared among threads.
    """

    product: Product
    after: Epilogue | None
    tile: Tile
    machine: Machine
    panels: Any
    parallel: bool

    def emit(self) -> None:
        """Emit all tasks."""
        product, width = self.product, self.width
        rows = product.count(product.rows)
        panels = simplified((product.count(product.columns) + width - 1) // width)
        blocks = simplified((rows + self.tile.block - 1) // self.tile.block)
        outer = product.count(product.outer)
        tasks = simplified(outer * blocks * panels)
        with (shared if self.parallel else serial)(index(0), tasks) as task:
            panel = T.Bind(task % panels)
            block = T.Bind(task // panels % blocks)
            places = fused(product.outer, task // panels // blocks)
            places = {var: T.Bind(value) for var, value in places.items()}
            right = self.panels
            start = simplified(panel * (self.summed * width))
            if right is None:
                right, start = self._pack(panel, places), index(0)
            results = T.alloc_buffer((self.tile.rows * width,), "float32", layout=None)
            task_of = _Task(self, places, panel, right, start, results)
            task_of.rows(block * self.tile.block, rows)

    @property
    def width(self) -> int:
        """Columns of a panel."""
        return self.tile.columns(self.machine)

    @property
    def summed(self) -> Any:
        """Terms of each sum."""
        return self.product.count(self.product.summed)

    def _pack(self, panel: Any, places: dict[Any, Any]) -> Any:
        """Copy a panel of the right operand; what is beyond the last column does not matter."""
        product, width = self.product, self.width
        buffer = product.right.load.source
        packed = T.alloc_buffer((simplified(self.summed * width),), "float32", layout=None)
        source = columns_of(product, places, panel * width, width, self.machine.lanes)

        def line(values: dict[Any, Any]) -> None:
            row = T.Bind(linear(product.summed, values) * width)
            along = T.Bind(simplified(substitute(product.right.along, values)))
            source.copy(
                buffer, along, lambda lane, value: T.buffer_store(packed, value, [row + lane])
            )

        grid(product.summed, line)
        return packed


@dataclasses.dataclass(frozen=True)
class _Task:
    """One panel of columns and one block of rows of one product."""

    kernel: Kernel
    places: dict[Any, Any]
    panel: Any
    right: Any
    start: Any
    results: Any

    def rows(self, first: Any, rows: Any) -> None:
        """All the rows from `first` that belong to the block, tile by tile."""
        high, block = self.kernel.tile.rows, self.kernel.tile.block
        known = constant(rows)
        if known is not None and known <= high:
            self._accumulate(index(0), known, index(0))
            self._finish(index(0), index(known))
            return
        end = T.Bind(tirx.min(first + block, rows))
        with serial(index(0), (end - first + (high - 1)) // high) as number:
            start = T.Bind(first + number * high)
            if known is not None and known % high == 0:
                self._accumulate(start, high, index(0))
                self._finish(start, index(high))
                return
            count = T.Bind(tirx.min(end - start, index(high)))
            with T.If(count == high):
                with T.Then():
                    self._accumulate(start, high, index(0))
                with T.Else():
                    if known is not None:
                        self._accumulate(start, known % high, index(0))
                    else:
                        self._rest(start, count)
            self._finish(start, count)

    def _rest(self, start: Any, count: Any) -> None:
        """Fewer rows than a tile has: as powers of two, so that a few kernels are enough."""
        size = 1 << (self.kernel.tile.rows - 1).bit_length() >> 1
        while size:
            with T.If(count // size % 2 == 1), T.Then():
                row = T.Bind(count // (2 * size) * (2 * size))
                self._accumulate(start + row, size, row)
            size //= 2

    def _accumulate(self, first: Any, count: int, into: Any) -> None:
        """Sum up `count` rows and put them into the scratch buffer from row `into` on."""
        kernel, product = self.kernel, self.kernel.product
        lanes, vectors, width = kernel.machine.lanes, kernel.tile.vectors, kernel.width
        bases = [
            T.Bind(
                simplified(substitute(product.left.place, {**self.places, **self._row(first, i)}))
            )
            for i in range(count)
        ]
        ways = max(1, min(_INDEPENDENT // (count * vectors), 4))
        sums = [
            [[local(lanes, "float32") for _ in range(vectors)] for _ in range(count)]
            for _ in range(ways)
        ]
        for way in sums:
            for row in way:
                for vector in row:
                    put(vector, lanes, tirx.Broadcast(tirx.const(0.0, "float32"), lanes))

        def multiply(values: dict[Any, Any], way: int) -> None:
            along = simplified(substitute(product.left.along, values))
            line = self.start + linear(product.summed, values) * width
            right = [T.Bind(whole(self.right, lanes, line + lanes * v)) for v in range(vectors)]
            for i, base in enumerate(bases):
                element = at(product.left.load.source, base + along)
                left = T.Bind(tirx.Broadcast(element, lanes))
                for v, vector in enumerate(right):
                    total = sums[way][i][v]
                    put(total, lanes, whole(total, lanes) + left * vector)

        *slow, fast = product.summed

        def line(values: dict[Any, Any]) -> None:
            with serial(index(0), simplified(fast.extent // ways)) as step_:
                for way in range(ways):
                    multiply({**values, fast.var: step_ * ways + way}, way)
            if ways > 1 and (constant(fast.extent) is None or constant(fast.extent) % ways):  # type: ignore[operator]
                with serial(simplified(fast.extent // ways * ways), fast.extent) as k:
                    multiply({**values, fast.var: k}, 0)

        grid(slow, line)
        for i in range(count):
            for v in range(vectors):
                value = whole(sums[0][i][v], lanes)
                for way in sums[1:]:
                    value = value + whole(way[i][v], lanes)
                put(self.results, lanes, value, (into + i) * width + v * lanes)

    def _row(self, first: Any, number: int) -> dict[Any, Any]:
        return {**self.places, **fused(self.kernel.product.rows, first + number)}

    def _finish(self, first: Any, count: Any) -> None:
        """Hand `count` rows of the scratch buffer to what follows the product."""
        kernel, product = self.kernel, self.kernel.product
        width, lanes = kernel.width, kernel.machine.lanes
        stage, places = _finished(product, kernel.after)
        columns = product.count(product.columns)
        known = constant(columns)
        extent = index(width)
        if known is None or known % width:
            extent = T.Bind(tirx.min(columns - self.panel * width, index(width)))
        with serial(index(0), count) as row:
            rows = {var: T.Bind(v) for var, v in fused(product.rows, first + row).items()}
            here = {**self.places, **rows}

            def element(lane: Any) -> None:
                own = {**here, **fused(product.columns, self.panel * width + lane)}
                mine = {var: substitute(place, own) for var, place in places.items()}
                value = _with_results(
                    stage.value, product.stage.buffer, self.results[row * width + lane]
                )
                indices = [substitute(position, mine) for position in stage.indices]
                T.buffer_store(stage.buffer, substitute(value, mine), indices)

            if _in_vectors(product, stage, places):
                in_lanes(extent, lanes, element)
            else:
                with serial(index(0), extent) as lane:
                    element(lane)


def _finished(product: Product, after: Epilogue | None) -> tuple[Stage, dict[Any, Any]]:
    """The stage that writes the results, and its axes in terms of the product's."""
    if after is None:
        own = product.stage
        value = tirx.BufferLoad(own.buffer, list(own.indices))
        stage = Stage(own.name, own.spatial, own.buffer, own.indices, value)
        return stage, {axis.var: axis.var for axis in own.spatial}
    pairs = zip(after.stage.spatial, after.places, strict=True)
    return after.stage, {
        axis.var: index(0) if place is None else place.var for axis, place in pairs
    }


def _in_vectors(product: Product, stage: Stage, places: dict[Any, Any]) -> bool:
    """Whether results of neighbouring columns are neighbours in memory."""
    lane = tirx.Var("lane", "int64")
    own = fused(product.columns, lane)
    mine = {var: substitute(place, own) for var, place in places.items()}
    value = _with_results(stage.value, product.stage.buffer, tirx.const(0.0, "float32"))
    indices = [substitute(position, mine) for position in stage.indices]
    return step(stage.buffer, indices, lane) == 1 and vectorizable(substitute(value, mine), lane)


def _with_results(value: Any, buffer: Any, result: Any) -> Any:
    def load(node: ir.TensorLoad) -> Any:
        return result if node.source.same_as(buffer) else node

    return tvm_ffi.structural_map(value, [(ir.TensorLoad, load)])
