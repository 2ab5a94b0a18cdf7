"""From a tile's sums in registers to results in memory.

What becomes of a sum is the product's `Epilogue`. Results leave in one of two ways. Small ones go
through shared memory in pieces of 64 rows and 128 bytes, which the copy engine takes away while the
next piece is made; it leaves out what is outside of the matrix. Others are stored by the threads,
two columns at a time where that is aligned.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from tvm import tirx
from tvm.tirx.script import builder

from ..intrinsics import mbarrier, stmatrix, tma, wgmma
from ..intrinsics.ptx import issue
from ..intrinsics.registers import held
from ..parameters import Parameters, long
from . import sizes as fits
from .main_loop import Consumer
from .operands import Operands

#: TVM's builder; its annotations are narrower than what it gives.
T: Any = builder

#: Barriers 2 and 3 are the consumers' own.
_OWN = 2


class Finish:
    """The epilogue of one tile in one consumer.

    Args:
        consumer: whose tile it is.
        parameters: the kernel's.
        y_map: tensor map of the results, where they leave through shared memory.
        row: the tile's first row that is this consumer's, int32.
        column: the first column that this block finishes, int32.
    """

    def __init__(
        self, consumer: Consumer, parameters: Parameters, y_map: Any, row: Any, column: Any
    ) -> None:
        self._plan = consumer.plan
        self._consumer = consumer
        self._parameters = parameters
        self._y_map = y_map
        self._row = row
        self._column = column
        self._lane = consumer.thread % 32
        self._warp = consumer.thread // 32
        self._item = fits.output_bytes(self._plan.problem)
        self._extents = self._plan.extents(parameters.rows)

    def begin(self) -> None:
        """Ask for the operands that are needed first."""
        blocks = range(self._plan.sizes.blocks)
        rows = [held(self._row_of(block, half)) for block in blocks for half in range(2)]
        self._rows = rows
        self._first = held(self._column + self._lane % 4 * 2)
        self._operands = Operands(self._plan, self._parameters, rows, self._first)

    def end(self, sums: Any) -> None:
        """Store all results.

        Args:
            sums: registers, in the order of `wgmma` for each 64 rows.
        """
        self._sums = sums
        if self._plan.staged:
            self._through_shared_memory()
        else:
            self._directly()

    def _row_of(self, block: int, half: int) -> Any:
        """The row of a thread's elements, int32."""
        within = block * wgmma.ROWS + half * 8
        return self._row + (self._warp * 16 + self._lane // 4 + within)

    def _value(self, block: int, half: int, group: int, second: int) -> Any:
        """The result of one element."""
        problem = self._plan.problem
        place = (block * self._plan.sizes.groups + group) * 4 + half * 2 + second
        total = self._sums[place]
        if problem.accumulator == "int32":
            total = T.Bind(tirx.reinterpret("int32", total))
        elements = self._operands.elements(block * 2 + half, group, second)
        return held(problem.epilogue.at(total, elements))

    def _directly(self) -> None:
        sizes = self._plan.sizes
        pairs = not sizes.swap and self._plan.problem.outputs % 2 == 0
        y = self._parameters.y
        addresses = [
            held(tirx.reinterpret("uint64", T.address_of(y[long(row), long(self._first)])))
            for row in (self._rows if pairs else ())
        ]
        for group in range(sizes.groups):
            self._operands.use(group)
            for block in range(sizes.blocks):
                for half in range(2):
                    row = block * 2 + half
                    with T.If(self._rows[row] < self._extents[0]), T.Then():
                        if pairs:
                            self._store_pair(addresses[row], block, half, group)
                        else:
                            self._store_each(self._rows[row], block, half, group)

    def _store_pair(self, address: Any, block: int, half: int, group: int) -> None:
        """Store the results of a thread's two neighbouring columns, the first of them even.

        The number of columns is even, too, so that both or none are inside.
        """
        inside = self._first + group * 8 < self._plan.problem.outputs
        with _when(inside, self._plan.clips_columns):
            values = [self._value(block, half, group, second) for second in range(2)]
            place = T.ptx.addr(address, group * 8 * self._item)
            if self._item == 4:
                words = [tirx.reinterpret("uint32", value) for value in values]
                issue("st.global.v2.b32", place, *words)
            else:
                issue(f"st.global.b{16 * self._item}", place, _packed(values, self._item))

    def _store_each(self, row: Any, block: int, half: int, group: int) -> None:
        """Store the results of two columns, each where it is inside."""
        for second in range(2):
            column = self._first + (group * 8 + second)
            with T.If(column < self._extents[1]), T.Then():
                m, n = (column, row) if self._plan.sizes.swap else (row, column)
                value = self._value(block, half, group, second)
                T.buffer_store(self._parameters.y, value, [long(m), long(n)])

    def _through_shared_memory(self) -> None:
        sizes, plan = self._plan.sizes, self._plan
        per_piece = plan.piece // 8
        pieces = sizes.groups // per_piece
        name = T.Bind(tirx.Cast("uint32", self._consumer.number + _OWN))
        number = 0
        for piece in range(pieces):
            for block in range(sizes.blocks):
                # Two buffers take turns; after an odd number the next tile begins with the last.
                pending = 1 if number > 0 or pieces * sizes.blocks % 2 == 0 else 0
                with T.If(self._consumer.thread == 0), T.Then():
                    tma.stored(pending, read=True)
                mbarrier.named_sync(name, wgmma.THREADS)
                base = held(self._consumer.memory.piece(self._consumer.number, number % 2))
                if self._item == 2:
                    self._write_words(base, block, piece * per_piece)
                else:
                    self._write_bytes(base, block, piece * per_piece)
                tma.visible()
                mbarrier.named_sync(name, wgmma.THREADS)
                with T.If(self._consumer.thread == 0), T.Then():
                    place = (self._row + block * wgmma.ROWS, self._column + piece * plan.piece)
                    tma.store(self._y_map, place, base)
                number += 1

    def _write_words(self, base: Any, block: int, first: int) -> None:
        """Write a piece of two-byte results: 64 rows, eight groups from `first` on, swizzled."""
        lane = self._lane
        line = base + tirx.Cast("uint32", (self._warp * 16 + lane % 16) * tma.ROW)
        for group in range(0, 8, 2):
            self._operands.use(first + group)
            registers = [
                self._pair(block, half, first + group + right)
                for right in range(2)
                for half in range(2)
            ]
            chunk = (lane // 16 + group) ^ (lane % 8)
            stmatrix.store(line + tirx.Cast("uint32", chunk * 16), registers)

    def _write_bytes(self, base: Any, block: int, first: int) -> None:
        """Write a piece of one-byte results: 64 rows, sixteen groups, swizzled."""
        lane = self._lane
        line = (self._warp * 16 + lane // 4) * tma.ROW + lane % 4 * 2
        for group in range(16):
            self._operands.use(first + group)
            chunk = (lane // 4) ^ (group // 2)
            for half in range(2):
                within = chunk * 16 + (group % 2 * 8 + half * 8 * tma.ROW)
                place = base + tirx.Cast("uint32", line + within)
                issue("st.shared.b16", place, self._pair(block, half, first + group))

    def _pair(self, block: int, half: int, group: int) -> Any:
        """The results of two neighbouring columns in one register."""
        values = [self._value(block, half, group, second) for second in range(2)]
        return T.Bind(_packed(values, self._item))


def _packed(values: list[Any], item: int) -> Any:
    """Two results of one or two bytes in one unsigned number, the first in its low half."""
    bits = 8 * item
    narrow, wide = f"uint{bits}", f"uint{2 * bits}"
    low, high = (tirx.Cast(wide, tirx.reinterpret(narrow, value)) for value in values)
    return low | (high << tirx.const(bits, wide))


@contextlib.contextmanager
def _when(condition: Any, needed: bool) -> Iterator[None]:
    """What is inside happens under a condition, where one is needed at all."""
    if not needed:
        yield
        return
    with T.If(condition), T.Then():
        yield
