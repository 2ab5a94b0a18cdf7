"""Decoded rows of a sparse matrix, in parts whose share of the other operand fits a cache."""

from __future__ import annotations

from typing import Any

from tvm import tirx
from tvm.tirx.script import builder as T

from .intrinsics_emit import index, local

#: Elements of a block of x that stay in the first cache.
_NEAR = 8192


class RowLists:
    """Rows of w as lists of values and of places in a block of x, in parts of some columns each.

    The part of x that belongs to a part of the columns stays in the first cache for all rows.

    Args:
        length: columns.
        rows: how many there is room for.
        block: elements of x for each column.
    """

    def __init__(self, length: int, rows: int, block: int) -> None:
        self.length, self.block = length, block
        self.width = max(1, _NEAR // block)
        self.parts = -(-length // self.width)
        self.values = T.alloc_buffer((rows * length,), "float32", layout=None)
        self.offsets = T.alloc_buffer((rows * length,), "int32", layout=None)
        self._ends = T.alloc_buffer((rows * (self.parts + 1),), "int32", layout=None)
        self._count = local(1, "int32")

    def open(self, row: Any) -> None:
        """Begin a row."""
        T.buffer_store(self._count, tirx.const(0, "int32"), [0])
        with T.serial(index(0), index(self.parts + 1)) as part:
            T.buffer_store(self._ends, tirx.const(0, "int32"), [row * (self.parts + 1) + part])

    def keep(self, row: Any, value: Any, column: Any) -> None:
        """Append a value; columns grow."""
        place = row * self.length + self._count[0]
        T.buffer_store(self.values, value, [place])
        T.buffer_store(self.offsets, column * self.block, [place])
        T.buffer_store(self._count, self._count[0] + 1, [0])
        part = row * (self.parts + 1) + column // self.width + 1
        T.buffer_store(self._ends, self._count[0], [part])

    def close(self, row: Any) -> None:
        """Parts without values end where those before them do."""
        with T.serial(index(1), index(self.parts + 1)) as part:
            place = row * (self.parts + 1) + part
            T.buffer_store(self._ends, tirx.max(self._ends[place], self._ends[place - 1]), [place])

    def limits(self, row: Any, part: Any) -> tuple[Any, Any]:
        """The first value of a part, and the first behind it."""
        place = row * (self.parts + 1) + part
        low, high = (T.Bind(tirx.Cast("int64", self._ends[place + n])) for n in (0, 1))
        return low, high
