"""One matrix's tiles in shared memory: where bytes lie, and how they come there."""

from __future__ import annotations

from typing import Any

from tvm import tirx
from tvm.tirx.script import builder as T

from ..intrinsics.mma import COPY, Kind, copy
from ..parameters import held, long
from .sizes import Sizes

#: Shared memory has 32 banks of 4 bytes.
_BANKS = 128


def swizzled(row: Any, chunk: Any, depth: int) -> Any:
    """Where 16 bytes of a tile lie: chunk `chunk` of row `row`, as a byte offset.

    Rows are `depth` bytes, a power of two from 32 on. The chunks of each row are permuted so that
    equal chunks of eight successive rows, which ``ldmatrix`` reads at once, are in different banks.
    """
    chunks = depth // COPY
    together = max(1, _BANKS // depth)
    return row * depth + (chunk ^ ((row // together) % min(chunks, 8))) * COPY


class Tile:
    """`lines` lines of a matrix, `depth` bytes of each at a time."""

    def __init__(
        self,
        shared: Any,
        source: Any,
        kind: Kind,
        sizes: Sizes,
        *,
        lines: int,
        offset: int,
        first: Any,
        end: Any,
        thread: Any,
    ) -> None:
        """Compute what every step's copies need.

        Args:
            shared: the block's bytes.
            source: the matrix, row by row.
            kind: of its elements.
            sizes: of the kernel.
            lines: of the tile.
            offset: of the tile within a stage.
            first: its first line in the matrix.
            end: lines of the matrix.
            thread: the thread's number.
        """
        self.shared, self.source, self.sizes, self.lines = shared, source, sizes, lines
        self.kind, self.offset, self.thread = kind, offset, thread
        self.length = int(source.ty.shape[1])
        self.chunks = sizes.depth // COPY
        per_chunk = COPY // kind.bytes
        self.term = held(thread % self.chunks * per_chunk)
        self.start = held((first + long(thread // self.chunks)) * self.length + long(self.term))
        self.flat = T.decl_buffer(
            (source.ty.shape[0] * self.length,), str(source.ty.dtype), data=source.data
        )
        whole = isinstance(end, int) and end % lines == 0
        rest = tirx.min(end - first, tirx.const(lines, "int64"))
        self.there = None if whole else held(tirx.Cast("int32", rest))

    def place(self, row: Any, chunk: Any) -> Any:
        """The byte offset within the tile of a lane's first chunk."""
        return held(swizzled(row, chunk, self.sizes.depth))

    def copy(self, step: Any, stage: Any) -> None:
        """Begin to copy a step's bytes into a stage, 16 by each thread in each turn."""
        sizes, thread, chunks = self.sizes, self.thread, self.chunks
        per_step = sizes.depth // self.kind.bytes
        base = held(stage * sizes.stage_bytes + self.offset)
        start = held(self.start + long(step * per_step))
        apart = sizes.threads // chunks
        ragged = self.length % per_step != 0
        for turn in range(-(-self.lines // apart)):
            line = thread // chunks + turn * apart
            target = T.address_of(self.shared[base + swizzled(line, thread % chunks, sizes.depth)])
            source = T.address_of(self.flat[start + turn * apart * self.length])
            conditions = [] if self.there is None else [line < self.there]
            if ragged:
                conditions.append(self.term + step * per_step < self.length)
            there = tirx.all(*conditions) if conditions else None
            if (turn + 1) * apart <= self.lines:
                copy(target, source, there)
            else:
                with T.If(line < self.lines), T.Then():
                    copy(target, source, there)
