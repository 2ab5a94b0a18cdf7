"""The end of the kernel: results as they are, or as bit planes for the next product."""

from __future__ import annotations

import dataclasses
from typing import Any

from tvm import tirx
from tvm.tirx.script import builder

from ..intrinsics.bits import quad_or
from ..intrinsics.mma import COLUMNS, ROWS
from ..parameters import finished, held
from .problem import BinaryProduct
from .sizes import Sizes

#: TVM's builder; its annotations are narrower than what it gives.
T: Any = builder

#: Products whose columns make up one word.
_TOGETHER = 32 // COLUMNS


@dataclasses.dataclass(frozen=True)
class _Store:
    """A lane's results.

    Attributes:
        problem: the product.
        sizes: of the kernel.
        sums: int32: for each product two neighbours, and two more eight rows below.
        operands: the epilogue's arrays.
        y: where results go.
        rows: M.
        row: of the first result.
        column: of the first result.
        lane: the lane's number.
    """

    problem: BinaryProduct
    sizes: Sizes
    sums: Any
    operands: tuple[Any, ...]
    y: Any
    rows: Any
    row: Any
    column: Any
    lane: Any

    def value(self, at: int, row: Any, column: Any) -> Any:
        """What the epilogue makes of a sum."""
        return finished(self.problem.epilogue, self.operands, self.sums[at], row, column)

    def emit(self) -> None:
        """Store all results that are in the matrix."""
        for i in range(self.sizes.row_tiles):
            for half in range(2):
                row = held(self.row + (i * ROWS + half * 8))
                self.store_row(row, i * self.sizes.column_tiles * 4 + half * 2)

    def store_row(self, row: Any, at: int) -> None:
        """Store the results of one row; the first sum is at `at`."""
        raise NotImplementedError


class PlainStore(_Store):
    """Results as numbers."""

    def store_row(self, row: Any, at: int) -> None:
        """Store what is in the matrix, one by one: neighbours are merged by the caches."""
        outputs = self.problem.outputs
        with T.If(row < self.rows), T.Then():
            for j in range(self.sizes.column_tiles):
                for pair in range(2):
                    column = held(self.column + (j * COLUMNS + pair))
                    with T.If(column < outputs), T.Then():
                        value = self.value(at + 4 * j + pair, row, column)
                        T.buffer_store(self.y, value, [row, column])


class PackedStore(_Store):
    """Results as planes: eight bits of each lane, united over four lanes, are a word."""

    def store_row(self, row: Any, at: int) -> None:
        """Store the row's words, those beyond the outputs as zeros. All lanes take part."""
        output = self.problem.output
        assert output is not None
        # Rows beyond the matrix are computed from its last row, and not stored.
        read = held(tirx.min(row, self.rows - 1))
        for group in range(self.sizes.column_tiles // _TOGETHER):
            codes = []
            for place in range(2 * _TOGETHER):
                product = group * _TOGETHER + place // 2
                column = held(self.column + (product * COLUMNS + place % 2))
                last = tirx.const(self.problem.outputs - 1, "int64")
                value = self.value(at + 4 * product + place % 2, read, tirx.min(column, last))
                code = tirx.Cast("uint32", output.code(value))
                zero = tirx.const(0, "uint32")
                codes.append(held(tirx.if_then_else(column < self.problem.outputs, code, zero)))
            word = self.column // 32 + group
            for plane in range(output.bits):
                bits: Any = tirx.const(0, "uint32")
                for place, code in enumerate(codes):
                    bit = (code >> tirx.const(plane, "uint32")) & tirx.const(1, "uint32")
                    shift = place // 2 * COLUMNS + place % 2
                    bits = bits | (bit << tirx.const(shift, "uint32"))
                whole = quad_or(bits << tirx.Cast("uint32", self.lane % 4 * 2))
                mine = tirx.all(
                    row < self.rows, word < self.y.ty.shape[2], self.lane % 4 == plane % 4
                )
                with T.If(mine), T.Then():
                    T.buffer_store(self.y, whole, [row, tirx.const(plane, "int64"), word])
