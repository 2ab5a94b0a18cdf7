"""From a tile's sums in registers to results in memory.

What becomes of a sum is the product's `Epilogue`. Operands along the tile's rows are loaded once
per row that a thread has, those along its columns once per column.

Results leave in one of two ways. Small ones go through shared memory in pieces of 64 rows and 128
bytes, which the copy engine takes away while the next piece is made; it leaves out what is outside
of the matrix. Others are stored by the threads, two columns at a time where that is aligned.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from tvm import tirx
from tvm.tirx.script import builder

from ..intrinsics import mbarrier, stmatrix, tma, wgmma
from ..intrinsics.ptx import issue, kept
from ..parameters import Parameters, long
from . import sizes as fits
from .main_loop import Consumer

#: TVM's builder; its annotations are narrower than what it gives.
T: Any = builder

#: Barriers 2 and 3 are the consumers' own.
_OWN = 2


@dataclasses.dataclass(frozen=True, eq=False)
class Finish:
    """The epilogue of one tile in one consumer.

    Attributes:
        consumer: whose tile it is.
        parameters: the kernel's.
        y_map: tensor map of the results, where they leave through shared memory.
        row: the tile's first row that is this consumer's.
        column: the first column that this block finishes.
        sums: registers, in the order of `wgmma` for each 64 rows.
    """

    consumer: Consumer
    parameters: Parameters
    y_map: Any
    row: Any
    column: Any
    sums: Any

    def emit(self) -> None:
        """Store all results."""
        if self.consumer.plan.staged:
            self._through_shared_memory()
        else:
            self._directly()

    @property
    def _lane(self) -> Any:
        return self.consumer.thread % 32

    @property
    def _warp(self) -> Any:
        return self.consumer.thread // 32

    def _row_of(self, block: int, half: int) -> Any:
        """The row of a thread's elements, int32."""
        within = block * wgmma.ROWS + half * 8
        return self.row + (self._warp * 16 + self._lane // 4 + within)

    def _column_of(self, group: int, second: int) -> Any:
        """Their column."""
        return self.column + (self._lane % 4 * 2 + (group * 8 + second))

    def _value(self, operands: list[Any], block: int, group: int, half: int, second: int) -> Any:
        """The result of one element, given its operands' elements."""
        problem = self.consumer.plan.problem
        groups = self.consumer.plan.sizes.groups
        total = self.sums[(block * groups + group) * 4 + half * 2 + second]
        if problem.accumulator == "int32":
            total = T.Bind(tirx.reinterpret("int32", total))
        return T.Bind(problem.epilogue.at(total, operands))

    def _directly(self) -> None:
        rows = self._bound_rows()
        operands = _Operands(self, rows)
        sizes = self.consumer.plan.sizes
        for group in range(sizes.groups):
            columns = [T.Bind(self._column_of(group, second)) for second in range(2)]
            along = operands.columns(columns)
            for block in range(sizes.blocks):
                for half in range(2):
                    row = rows[block * 2 + half]
                    with T.If(row < self._extents[0]), T.Then():
                        self._store_pair(operands, along, row, columns, (block, group, half))

    @property
    def _extents(self) -> tuple[Any, Any]:
        return self.consumer.plan.extents(self.parameters.rows)

    def _bound_rows(self) -> list[Any]:
        blocks = range(self.consumer.plan.sizes.blocks)
        return [kept(self._row_of(block, half)) for block in blocks for half in range(2)]

    def _store_pair(
        self,
        operands: _Operands,
        along: list[list[Any]],
        row: Any,
        columns: list[Any],
        place: tuple[int, int, int],
    ) -> None:
        """Store the results of a thread's two neighbouring columns."""
        plan, (block, group, half) = self.consumer.plan, place
        outputs = plan.problem.outputs

        def value(second: int) -> Any:
            elements = operands.elements(block * 2 + half, row, along, columns, second)
            return self._value(elements, block, group, half, second)

        # Pairs begin at even columns: with an even number of them, both or none are inside.
        if not plan.sizes.swap and outputs % 2 == 0:
            with _when(columns[0] < outputs, outputs % plan.sizes.columns != 0):
                self._store_vector(row, columns[0], [value(0), value(1)])
            return
        for second in range(2):
            with T.If(columns[second] < self._extents[1]), T.Then():
                m, n = (columns[second], row) if plan.sizes.swap else (row, columns[second])
                T.buffer_store(self.parameters.y, value(second), [long(m), long(n)])

    def _store_vector(self, row: Any, column: Any, values: list[Any]) -> None:
        address = T.address_of(self.parameters.y[long(row), long(column)])
        item = fits.output_bytes(self.consumer.plan.problem)
        if item == 4:
            issue("st.global.v2.b32", address, *[tirx.reinterpret("uint32", v) for v in values])
        else:
            issue(f"st.global.b{16 * item}", address, _packed(values, item))

    def _through_shared_memory(self) -> None:
        plan = self.consumer.plan
        rows = self._bound_rows()
        operands = _Operands(self, rows)
        pieces = plan.sizes.groups * 8 // plan.piece
        count = plan.sizes.blocks * pieces
        name = T.Bind(tirx.Cast("uint32", self.consumer.number + _OWN))
        number = 0
        for block in range(plan.sizes.blocks):
            for piece in range(pieces):
                # Two buffers take turns; after an odd number the next tile begins with the last.
                pending = 1 if number > 0 or count % 2 == 0 else 0
                with T.If(self.consumer.thread == 0), T.Then():
                    tma.stored(pending, read=True)
                mbarrier.named_sync(name, wgmma.THREADS)
                base = T.Bind(self.consumer.memory.piece(self.consumer.number, number % 2))
                self._write_piece(operands, rows, base, block, piece * plan.piece // 8)
                tma.visible()
                mbarrier.named_sync(name, wgmma.THREADS)
                with T.If(self.consumer.thread == 0), T.Then():
                    place = (self.row + block * wgmma.ROWS, self.column + piece * plan.piece)
                    tma.store(self.y_map, place, base)
                number += 1

    def _write_piece(
        self, operands: _Operands, rows: list[Any], base: Any, block: int, first: int
    ) -> None:
        """Write 64 rows of 128 bytes, swizzled, from group of columns `first` on."""
        item = fits.output_bytes(self.consumer.plan.problem)
        lane = self._lane
        if item == 2:
            line = base + tirx.Cast("uint32", (self._warp * 16 + lane % 16) * tma.ROW)
            for group in range(0, 8, 2):
                registers = [
                    self._pair(operands, rows, block, first + group + right, half)
                    for right in range(2)
                    for half in range(2)
                ]
                chunk = (lane // 16 + group) ^ (lane % 8)
                stmatrix.store(line + tirx.Cast("uint32", chunk * 16), registers)
            return
        for half in range(2):
            line = (self._warp * 16 + half * 8 + lane // 4) * tma.ROW + lane % 4 * 2
            line = T.Bind(base + tirx.Cast("uint32", line))
            for group in range(16):
                chunk = (lane // 4) ^ (group // 2)
                offset = tirx.Cast("uint32", chunk * 16 + group % 2 * 8)
                pair = self._pair(operands, rows, block, first + group, half)
                issue("st.shared.b16", line + offset, pair)

    def _pair(self, operands: _Operands, rows: list[Any], block: int, group: int, half: int) -> Any:
        """The results of two neighbouring columns in one register."""
        columns = [self._column_of(group, second) for second in range(2)]
        along = operands.columns(columns)
        values = []
        for second in range(2):
            row = block * 2 + half
            elements = operands.elements(row, rows[row], along, columns, second)
            values.append(self._value(elements, block, group, half, second))
        return T.Bind(_packed(values, fits.output_bytes(self.consumer.plan.problem)))


class _Operands:
    """The epilogue's operands, for a thread's rows and columns; loads never leave an array."""

    def __init__(self, finish: Finish, rows: list[Any]) -> None:
        self._finish = finish
        self._swap = finish.consumer.plan.sizes.swap
        self._extents = finish.consumer.plan.extents(finish.parameters.rows)
        self._cached: dict[int, list[list[Any]]] = {}
        self._operands = list(
            zip(
                finish.consumer.plan.problem.epilogue.operands,
                finish.parameters.operands,
                strict=True,
            )
        )
        self._rows: list[list[Any]] = []
        for operand, array in self._operands:
            loaded: list[Any] = []
            if operand.extends == "one":
                loaded = [T.Bind(array[0])] * len(rows)
            elif operand.extends == self._down:
                loaded = [T.Bind(array[self._inside(row, 0)]) for row in rows]
            self._rows.append(loaded)

    @property
    def _down(self) -> str:
        return "column" if self._swap else "row"

    @property
    def _across(self) -> str:
        return "row" if self._swap else "column"

    def _inside(self, place: Any, axis: int) -> Any:
        """The place, or the last one there is, as an index."""
        return long(tirx.Min(place, self._extents[axis] - 1))

    def columns(self, columns: list[Any]) -> list[list[Any]]:
        """The elements along columns: by operand, then by column."""
        return [
            [T.Bind(array[self._inside(column, 1)]) for column in columns]
            if operand.extends == self._across
            else []
            for operand, array in self._operands
        ]

    def elements(
        self, number: int, row: Any, along: list[list[Any]], columns: list[Any], second: int
    ) -> list[Any]:
        """The operands' elements for one result."""
        result = []
        for place, (operand, array) in enumerate(self._operands):
            if operand.extends == "matrix":
                at = [self._inside(row, 0), self._inside(columns[second], 1)]
                result.append(array[tuple(reversed(at)) if self._swap else tuple(at)])
            elif operand.extends == self._across:
                result.append(along[place][second])
            else:
                result.append(self._rows[place][number])
        return result


def _packed(values: list[Any], item: int) -> Any:
    """Two results of one or two bytes in one unsigned number, the first in its low half."""
    bits = 8 * item
    narrow, wide = f"uint{bits}", f"uint{2 * bits}"
    low, high = (tirx.Cast(wide, tirx.reinterpret(narrow, value)) for value in values)
    return low | (high << tirx.const(bits, wide))


class _when:
    """``with _when(condition, needed)``: a condition, where one is needed at all."""

    def __init__(self, condition: Any, needed: bool) -> None:
        self._frames = [T.If(condition), T.Then()] if needed else []

    def __enter__(self) -> None:
        for frame in self._frames:
            frame.__enter__()

    def __exit__(self, *error: Any) -> None:
        for frame in reversed(self._frames):
            frame.__exit__(*error)
