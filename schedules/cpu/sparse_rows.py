"""``y = x @ w.T`` with any of w's values stored: work for those alone.

Outputs share no pattern, so a stored value is one scalar times a vector that runs over the rows of
x. x is laid out for that first: blocks of rows with the row index last. Rows of w are read one
value after the other, their places from a bitmap, whose bits are counted off one by one, or from a
list of columns; decoded once, they serve several blocks.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, Literal

from tvm import tirx
from tvm.tirx.script import builder as T

from .intrinsics import broadcast, multiply_add, pure_call
from .intrinsics_emit import (
    Extent,
    bound,
    constant,
    flat,
    index,
    kernel,
    lanes_of,
    local,
    product,
    store,
)
from .intrinsics_epilogue import PLAIN, Epilogue, Output
from .sparse_lists import RowLists

#: Blocks of rows for which a decoded row of w is used.
_BLOCKS = 8


def row_block(lanes: int, rows: int | None) -> int:
    """Rows of x side by side: four vectors, or one where that holds all."""
    return lanes if rows is not None and rows <= lanes else 4 * lanes


def block_count(rows: Extent, block: int) -> Extent:
    """Blocks that hold all rows."""
    known = constant(rows)
    return index(-(-known // block)) if known is not None else (rows + (block - 1)) // block


@dataclasses.dataclass(frozen=True)
class RowBlocks:
    """``x [..., K] -> [blocks, K, block]``, zeros for rows that are not there.

    Attributes:
        leading: sizes of x before the last; None where one is known only at run time.
        length: K.
        block: rows side by side.
    """

    leading: tuple[int | None, ...]
    length: int
    block: int

    def build(self) -> Any:
        """The PrimFunc."""

        def write() -> Callable[[], None]:
            sizes = bound(self.leading)
            rows = product(sizes)
            x = T.arg("x", T.buffer((*sizes, index(self.length)), "float32"))
            blocks = block_count(rows, self.block)
            shape = (blocks, index(self.length), index(self.block))
            columns = T.arg("columns", T.buffer(shape, "float32"))

            def body() -> None:
                values = flat(x, product([rows, index(self.length)]))
                with T.parallel(index(0), blocks) as block:
                    first = T.Bind(block * self.block)
                    with T.serial(index(0), index(self.block)) as i, T.If(first + i < rows):
                        with T.Then(), T.serial(index(0), index(self.length)) as k:
                            value = values[(first + i) * self.length + k]
                            T.buffer_store(columns, value, [block, k, i])
                        with T.Else(), T.serial(index(0), index(self.length)) as k:
                            T.buffer_store(columns, tirx.const(0.0, "float32"), [block, k, i])

            return body

        return kernel("row_blocks", write)


@dataclasses.dataclass(frozen=True)
class SparseRows:
    """``columns, values, places, starts, (table, scales), (bias), (addend) -> y [..., N]``.

    Attributes:
        lanes: float32 in a vector.
        leading: sizes of y before the last; None where one is known only at run time.
        length: K.
        outputs: N.
        count: stored values.
        block: rows side by side in `columns`.
        places: ``bitmap``: int32 words ``[N, K / 32]``. ``uint16``, ``uint32``: a column each.
        dtype: of a stored value; ``code``: `bits` of a stream, looked up in a table.
        bits: of a code.
        group: values of a row, stored or not, that share a scale.
        scale: type of the scales ``[N, groups]``; None where there are none.
        epilogue: what is done to the product before it is stored.
    """

    lanes: int
    leading: tuple[int | None, ...]
    length: int
    outputs: int
    count: int
    block: int
    places: Literal["bitmap", "uint16", "uint32"]
    dtype: Literal["float32", "float16", "code"]
    bits: int = 0
    group: int = 0
    scale: Literal["float32", "float16"] | None = None
    epilogue: Epilogue = PLAIN

    def build(self) -> Any:
        """The PrimFunc."""
        lanes = self.lanes

        def write() -> Callable[[], None]:
            sizes = bound(self.leading)
            rows = product(sizes)
            blocks = block_count(rows, self.block)
            shape = (blocks, index(self.length), index(self.block))
            x = T.arg("columns", T.buffer(shape, "float32"))
            buffers = self._declare()
            output = Output.declare(self.epilogue, sizes, self.outputs, lanes)
            panels = -(-self.outputs // lanes)

            def body() -> None:
                output.open()
                values = flat(x, product([*shape]))
                some = index(_BLOCKS)
                chunks = product([block_count(rows, self.block * _BLOCKS)])
                with T.parallel(index(0), product([chunks, index(panels)])) as number:
                    unit: Any = number
                    first = T.Bind(unit // chunks * lanes)
                    begin = T.Bind(unit % chunks * _BLOCKS)
                    blocks_here = T.Bind(tirx.min(some, blocks - begin))
                    self._unit(buffers, values, output, rows, first, begin, blocks_here)

            return body

        return kernel("sparse_rows_linear", write)

    def _unit(
        self, buffers: dict[str, Any], x: Any, output: Output,
        rows: Any, first: Any, begin: Any, blocks: Any,
    ) -> None:  # fmt: skip
        """One vector of outputs for some blocks of rows: each row of w is decoded once for all."""
        lanes, block = self.lanes, self.block
        done = T.alloc_buffer((_BLOCKS * block * lanes,), "float32", layout=None)
        fill_zeros(done, blocks * block, lanes)
        lists = RowLists(self.length, lanes, block)
        outputs = T.Bind(tirx.min(index(lanes), self.outputs - first))
        with T.serial(index(0), outputs) as i:
            lists.open(i)
            self._row(buffers, first + i, lambda value, column: lists.keep(i, value, column))
            lists.close(i)
        with T.serial(index(0), blocks) as number:
            start = T.Bind((begin + number) * (self.length * block))
            sums = T.alloc_buffer((block * lanes,), "float32", layout=None)
            fill_zeros(sums, block, lanes)
            with T.serial(index(0), index(lists.parts)) as part, T.serial(index(0), outputs) as i:
                self._add(x, start, lists, i, part, sums)
            with T.serial(index(0), outputs) as i, T.serial(index(0), index(block)) as row:
                value = sums[i * block + row]
                T.buffer_store(done, value, [(number * block + row) * lanes + i])
        here = tirx.min(blocks * block, rows - begin * block)
        with T.serial(index(0), here) as row:
            output.write(begin * block + row, first, lanes_of(done, lanes, row * lanes))

    def _add(self, x: Any, start: Any, lists: RowLists, i: Any, part: Any, sums: Any) -> None:
        """Add what one part of a row's stored values gives to its sums."""
        lanes, vectors = self.lanes, self.block // self.lanes
        own = [local(lanes, "float32") for _ in range(vectors)]
        for v, one in enumerate(own):
            store(one, lanes, lanes_of(sums, lanes, i * self.block + v * lanes))
        low, high = lists.limits(i, part)
        with T.serial(low, high) as position:
            factor = T.Bind(broadcast(lists.values[i * self.length + position], lanes))
            offset = lists.offsets[i * self.length + position]
            place = T.Bind(start + tirx.Cast("int64", offset))
            for v, one in enumerate(own):
                value = lanes_of(x, lanes, place + v * lanes)
                store(one, lanes, multiply_add(factor, value, lanes_of(one, lanes), lanes))
        for v, one in enumerate(own):
            store(sums, lanes, lanes_of(one, lanes), i * self.block + v * lanes)

    def _declare(self) -> dict[str, Any]:
        shapes: dict[str, tuple[tuple[int, ...], str]] = {}
        if self.dtype == "code":
            shapes["values"] = ((max(1, -(-self.count * self.bits // 32)),), "int32")
        else:
            shapes["values"] = ((max(1, self.count),), self.dtype)
        if self.places == "bitmap":
            shapes["places"] = ((self.outputs, -(-self.length // 32)), "int32")
        else:
            shapes["places"] = ((max(1, self.count),), self.places)
        shapes["starts"] = ((self.outputs + 1,), "int32")
        if self.dtype == "code":
            shapes["table"] = ((1 << self.bits,), "float32")
        if self.scale is not None:
            shapes["scales"] = ((self.outputs, -(-self.length // self.group)), self.scale)
        return {n: T.arg(n, T.buffer(shape, dtype)) for n, (shape, dtype) in shapes.items()}

    def _row(self, buffers: dict[str, Any], row: Any, use: Callable[[Any, Any], None]) -> None:
        """Call ``use(value, column)`` in a loop over a row's stored values."""
        places, starts = buffers["places"], buffers["starts"]

        def value(position: Any, column: Any) -> Any:
            real = self._value(buffers, position)
            if self.scale is None:
                return real
            return real * tirx.Cast("float32", buffers["scales"][row, column // self.group])

        if self.places != "bitmap":
            with T.serial(starts[row], starts[row + 1]) as position:
                column = T.Bind(tirx.Cast("int32", places[position]))
                use(T.Bind(value(position, column)), column)
            return
        position, rest = local(1, "int32"), local(1, "int32")
        T.buffer_store(position, starts[row], [0])
        with T.serial(index(0), index(-(-self.length // 32))) as word:
            T.buffer_store(rest, places[row, word], [0])
            with T.While(rest[0] != 0):
                bit = pure_call("int32", "llvm.cttz", rest[0], tirx.const(True, "bool"))
                column = T.Bind(tirx.Cast("int32", word) * 32 + bit)
                use(T.Bind(value(position[0], column)), column)
                # Without its lowest bit.
                T.buffer_store(rest, tirx.bitwise_and(rest[0], rest[0] - 1), [0])
                T.buffer_store(position, position[0] + 1, [0])

    def _value(self, buffers: dict[str, Any], position: Any) -> Any:
        if self.dtype != "code":
            return tirx.Cast("float32", buffers["values"][position])
        words, bits = buffers["values"], self.bits
        place = tirx.Cast("int64", position) * bits
        word, shift = T.Bind(place // 32), T.Bind(tirx.Cast("int32", place % 32))
        code = tirx.shift_right(words[word], shift)
        if 32 % bits:
            last = max(0, -(-self.count * bits // 32) - 1)
            following = words[tirx.min(word + 1, index(last))]
            room = tirx.const(31, "int32") - shift
            mask = tirx.shift_left(tirx.const(2, "int32"), room) - 1
            high = tirx.shift_left(tirx.shift_left(following, tirx.const(1, "int32")), room)
            code = tirx.bitwise_or(tirx.bitwise_and(code, mask), high)
        return buffers["table"][tirx.bitwise_and(code, tirx.const((1 << bits) - 1, "int32"))]


def fill_zeros(buffer: Any, count: Extent, lanes: int) -> None:
    """Zeros in `count` vectors of a flat buffer."""
    with T.serial(index(0), index(count) if isinstance(count, int) else count) as i:
        store(buffer, lanes, broadcast(tirx.const(0.0, "float32"), lanes), i * lanes)
