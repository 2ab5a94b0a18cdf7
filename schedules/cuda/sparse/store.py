"""From sums in registers to results in memory, where outputs are the sums' rows.

A lane has two neighbouring rows of x of one output; it stores two neighbouring outputs of one row
of x. So neighbours in pairs of lanes exchange one of their two sums first.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from tvm import tirx
from tvm.tirx.script import builder

from ..intrinsics.registers import held
from ..parameters import Parameters, long

#: TVM's builder; its annotations are narrower than what it gives.
T: Any = builder


@dataclasses.dataclass(frozen=True)
class Store:
    """A warp's results.

    Attributes:
        parameters: of the kernel.
        total: the lane's sum number `element` (0 to 3) of tile and group.
        lane: within the warp, int32.
        outputs: the first output of each tile of 16, int64.
        rows: the first row of x of each group of 8, int64.
        aligned: no tile reaches beyond the outputs.
    """

    parameters: Parameters
    total: Callable[[int, int, int], Any]
    lane: Any
    outputs: Sequence[Any]
    rows: Sequence[Any]
    aligned: bool

    def emit(self) -> None:
        """Store all results that are in the matrix. All lanes of the warp take part."""
        odd = held(self.lane // 4 % 2)
        within = held(long(self.lane // 8 * 2))
        places = [held(o + within + 8 * half) for o in self.outputs for half in range(2)]
        known = self._columns(places)
        for group, first in enumerate(self.rows):
            row = held(first + long(self.lane % 4 * 2 + odd))
            pairs = [self._exchanged(odd, place, group) for place in range(len(places))]
            with T.If(row < self.parameters.rows), T.Then():
                rows = self._row(row)
                for place, column in enumerate(places):
                    self._pair(pairs[place], row, column, {**known[place], **rows})

    def _exchanged(self, odd: Any, place: int, group: int) -> Any:
        """A buffer of the two sums that the lane stores for a half of a tile."""
        tile, half = divmod(place, 2)
        first, second = (self.total(tile, group, 2 * half + e) for e in range(2))
        dtype = str(first.ty.dtype)
        mask = tirx.const(0xFFFFFFFF, "uint32")
        mine = held(tirx.Select(odd == 1, first, second))
        other = held(tirx.call_pure_extern(dtype, "__shfl_xor_sync", mask, mine, 4))
        pair = T.alloc_buffer((2,), dtype, scope="local")
        T.buffer_store(pair, tirx.Select(odd == 1, other, first), [0])
        T.buffer_store(pair, tirx.Select(odd == 1, second, other), [1])
        return pair

    def _columns(self, places: Sequence[Any]) -> list[dict[int, Callable[[Any], Any]]]:
        """What the epilogue reads by output, or once, in registers, for each place."""
        found: list[dict[int, Callable[[Any], Any]]] = [{} for _ in places]
        outputs = self.parameters.problem.outputs
        for number, operand in enumerate(self.parameters.problem.epilogue.operands):
            source = self.parameters.operands[number]
            if operand.extends == "one":
                one = held(source[0])
                for values in found:
                    values[number] = lambda _, one=one: one
            elif operand.extends == "column":
                for place, values in zip(places, found, strict=True):
                    cells = T.alloc_buffer((2,), operand.dtype, scope="local")
                    for i in range(2):
                        value = source[place + i]
                        if not self.aligned:
                            zero = tirx.const(0, operand.dtype)
                            value = tirx.if_then_else(place + i < outputs, value, zero)
                        T.buffer_store(cells, value, [i])
                    values[number] = lambda i, cells=cells: cells[i]
        return found

    def _row(self, row: Any) -> dict[int, Callable[[Any], Any]]:
        """What the epilogue reads by row, in registers: all outputs use the same."""
        found: dict[int, Callable[[Any], Any]] = {}
        for number, operand in enumerate(self.parameters.problem.epilogue.operands):
            if operand.extends == "row":
                one = held(self.parameters.operands[number][row])
                found[number] = lambda _, one=one: one
        return found

    def _pair(self, pair: Any, row: Any, column: Any, known: dict[int, Any]) -> None:
        """Store two neighbouring outputs: at once where both exist or neither does."""
        outputs = self.parameters.problem.outputs

        def one(lane: Any) -> None:
            elements = [
                known[number](lane) if number in known else source[row, column + lane]
                for number, source in enumerate(self.parameters.operands)
            ]
            value = self.parameters.problem.epilogue.at(pair[lane], elements)
            T.buffer_store(self.parameters.y, value, [row, column + lane])

        def both() -> None:
            with T.vectorized(2) as lane:
                one(lane)

        if self.aligned:
            both()
        elif outputs % 2 == 0:
            with T.If(column < outputs), T.Then():
                both()
        else:
            for lane in range(2):
                with T.If(column + lane < outputs), T.Then():
                    one(lane)
