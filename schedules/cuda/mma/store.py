"""The end of the kernel: what the epilogue makes of each lane's sums goes to global memory."""

from __future__ import annotations

import dataclasses
from typing import Any

from tvm import tirx
from tvm.tirx.script import builder as T

from ..intrinsics.mma import COLUMNS, ROWS
from ..parameters import Parameters, held
from .sizes import Sizes


@dataclasses.dataclass(frozen=True)
class Store:
    """A lane's results.

    Attributes:
        parameters: of the kernel.
        sizes: its sizes.
        sums: the lane's: for each product two neighbours, and two more eight rows below.
        row: of the first.
        column: of the first.
    """

    parameters: Parameters
    sizes: Sizes
    sums: Any
    row: Any
    column: Any

    def emit(self) -> None:
        """Store all results that are in the matrix."""
        row, column = held(self.row), held(self.column)
        along = self._columns(column)
        for i in range(self.sizes.row_tiles):
            for half in range(2):
                here = held(row + (i * ROWS + half * 8))
                with T.If(here < self.parameters.rows), T.Then():
                    known = {**along, **self._row(here)}
                    for j in range(self.sizes.column_tiles):
                        at = (i * self.sizes.column_tiles + j) * 4 + half * 2
                        self._pair(_Pair(at, here, column + j * COLUMNS, j * 2, known))

    def _columns(self, column: Any) -> dict[int, Any]:
        """What the epilogue reads by column, or once, in registers: all rows use the same."""
        found: dict[int, Any] = {}
        outputs = self.parameters.problem.outputs
        for place, operand in enumerate(self.parameters.problem.epilogue.operands):
            source = self.parameters.operands[place]
            if operand.extends == "one":
                one = held(source[0])
                found[place] = lambda at, one=one: one
            elif operand.extends == "column":
                count = 2 * self.sizes.column_tiles
                cells = T.alloc_buffer((count,), operand.dtype, scope="local")
                for i in range(count):
                    there = column + (i // 2 * COLUMNS + i % 2)
                    value = source[there]
                    if outputs % self.sizes.columns:
                        zero = tirx.const(0, operand.dtype)
                        value = tirx.if_then_else(there < outputs, value, zero)
                    T.buffer_store(cells, value, [i])
                found[place] = lambda at, cells=cells: cells[at]
        return found

    def _row(self, row: Any) -> dict[int, Any]:
        """What the epilogue reads by row, in registers: all columns use the same."""
        found: dict[int, Any] = {}
        for place, operand in enumerate(self.parameters.problem.epilogue.operands):
            if operand.extends == "row":
                one = held(self.parameters.operands[place][row])
                found[place] = lambda at, one=one: one
        return found

    def _pair(self, pair: _Pair) -> None:
        """Store two neighbouring results: at once where both exist or neither does."""
        outputs = self.parameters.problem.outputs
        if outputs % self.sizes.columns == 0:
            self._vector(pair)
        elif outputs % 2 == 0:
            with T.If(pair.column < outputs), T.Then():
                self._vector(pair)
        else:
            for number in range(2):
                with T.If(pair.column + number < outputs), T.Then():
                    self._one(pair, number)

    def _vector(self, pair: _Pair) -> None:
        with T.vectorized(2) as lane:
            self._one(pair, lane)

    def _one(self, pair: _Pair, lane: Any) -> None:
        column = pair.column + lane
        elements = [
            pair.known[place](pair.at_column + lane)
            if place in pair.known
            else source[pair.row, column]
            for place, source in enumerate(self.parameters.operands)
        ]
        value = self.parameters.problem.epilogue.at(self.sums[pair.at + lane], elements)
        T.buffer_store(self.parameters.y, value, [pair.row, column])


@dataclasses.dataclass(frozen=True)
class _Pair:
    """Two neighbouring results: their sums, their place, and what the epilogue has of it."""

    at: int
    row: Any
    column: Any
    at_column: int
    known: dict[int, Any]
