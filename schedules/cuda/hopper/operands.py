"""The epilogue's operands as a thread needs them: those of its rows, and those of its columns.

They are asked for before they are needed: the rows' and the first columns' while the tile's last
products are under way, further columns one chunk ahead. Places outside of the result are those of
its last row or column instead, so that no load leaves an array; nothing is stored for them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tvm import tirx

from ..intrinsics.registers import held
from ..parameters import Parameters, long
from . import sizes as fits
from .plan import Plan

#: Registers of a thread for sums and operands, so that nothing is spilled; fewer where the epilogue
#: is busy.
_MOST, _MOST_BUSY = 164, 124


def chunk_of(plan: Plan) -> tuple[int, bool]:
    """How many groups of columns are loaded together, and whether the next are asked for meanwhile.

    As many as there are registers for: 8, 4 or 2.
    """
    down, across = ("column", "row") if plan.sizes.swap else ("row", "column")
    extends = [operand.extends for operand in plan.problem.epilogue.operands]
    taken = plan.sizes.sums + 2 * plan.sizes.blocks * extends.count(down)
    most = _MOST_BUSY if fits.busy(plan.problem) else _MOST
    for groups, ahead in ((8, True), (4, True), (4, False)):
        if taken + 2 * groups * (1 + ahead) * extends.count(across) <= most:
            return groups, ahead
    return 2, False


class Operands:
    """Loads and elements of one tile's operands.

    Where results are stored directly, `elements` is used only for what is inside.

    Args:
        plan: the kernel.
        parameters: its arrays.
        rows: a thread's rows in the tile, int32.
        column: its first column, int32.
    """

    def __init__(
        self,
        plan: Plan,
        parameters: Parameters,
        rows: Sequence[Any],
        column: Any,
    ) -> None:
        self._swap = plan.sizes.swap
        self._groups = plan.sizes.groups
        self._extents = plan.extents(parameters.rows)
        self._column = column
        self._long_column = held(long(column))
        self._guarded = not plan.staged
        self._clips = plan.clips_columns
        self._rows = rows
        self._operands = list(zip(plan.problem.epilogue.operands, parameters.operands, strict=True))
        down, self._across = ("column", "row") if self._swap else ("row", "column")
        self._along_rows: list[list[Any]] = []
        for operand, array in self._operands:
            loaded: list[Any] = []
            if operand.extends == "one":
                loaded = [held(array[0])] * len(rows)
            elif operand.extends == down:
                loaded = [held(array[self._row(row)]) for row in rows]
            self._along_rows.append(loaded)
        self.chunk, self._ahead = chunk_of(plan)
        self._chunks: dict[int, list[dict[tuple[int, int], Any]]] = {}
        self._load(0)

    def use(self, group: int) -> None:
        """From here on, elements of this group's columns are needed, and of its chunk's."""
        chunk = group // self.chunk
        self._load(chunk)
        if self._ahead:
            self._load(chunk + 1)

    def elements(self, row: int, group: int, second: int) -> list[Any]:
        """The operands' elements for one result.

        Args:
            row: number of the thread's row.
            group: of columns, in use.
            second: 0 or 1: which of the thread's columns of the group.
        """
        result = []
        for place, (operand, array) in enumerate(self._operands):
            if operand.extends == "matrix":
                at = (self._row(self._rows[row]), self._place(group, second))
                element = array[at[::-1] if self._swap else at]
                result.append(element if self._guarded else self._if_inside(element, group, second))
            elif operand.extends == self._across:
                result.append(self._chunks[group // self.chunk][place][group, second])
            else:
                result.append(self._along_rows[place][row])
        return result

    def _load(self, chunk: int) -> None:
        groups = range(chunk * self.chunk, min((chunk + 1) * self.chunk, self._groups))
        if chunk in self._chunks or not groups:
            return
        loaded: list[dict[tuple[int, int], Any]] = []
        for operand, array in self._operands:
            elements: dict[tuple[int, int], Any] = {}
            if operand.extends == self._across:
                for group in groups:
                    for second in range(2):
                        element = array[self._place(group, second)]
                        elements[group, second] = held(self._if_inside(element, group, second))
            loaded.append(elements)
        self._chunks[chunk] = loaded

    def _row(self, row: Any) -> Any:
        """The row, or the last one there is, as an index."""
        return long(tirx.Min(row, self._extents[0] - 1))

    def _place(self, group: int, second: int) -> Any:
        """The thread's column as an index."""
        return self._long_column + tirx.const(group * 8 + second, "int64")

    def _if_inside(self, element: Any, group: int, second: int) -> Any:
        """The element, where its column is inside of the result."""
        if not self._clips:
            return element
        inside = self._column + (group * 8 + second) < self._extents[1]
        return tirx.if_then_else(inside, element, tirx.const(0, str(element.ty.dtype)))
