"""How much of attention one block of threads holds at a time."""

from __future__ import annotations

import dataclasses

from .problem import Attention

#: A product of the tensor cores: rows of q, columns of scores, terms of 16 bits.
ROWS, COLUMNS, TERMS = 16, 8, 16

#: Elements of 16 bits that rows are padded with, so that eight of them lie in different banks.
PADDING = 8

#: Blocks of one warp that keep a large GPU busy, and parts beyond which adding them up costs more.
_BUSY, _MOST_PARTS = 512, 32


@dataclasses.dataclass(frozen=True)
class Sizes:
    """A block of `warps` · 16 rows walks over the columns, `columns` at a time.

    Attributes:
        warps: of a block.
        columns: keys and values in shared memory at a time, a multiple of 16.
        stages: how many such pieces there are: one is computed with, the others are on their way.
        parts: how many blocks share the columns of a row; more than one leave partial results.
    """

    warps: int = 4
    columns: int = 64
    stages: int = 2
    parts: int = 1

    @property
    def rows(self) -> int:
        """Rows of q that a block computes."""
        return self.warps * ROWS

    @property
    def threads(self) -> int:
        """Of a block."""
        return 32 * self.warps

    def shared_memory(self, problem: Attention) -> int:
        """Bytes of a block."""
        width, value = padded(problem.size), padded(problem.value_size)
        keys = self.stages * self.columns * (width + value + 2 * PADDING)
        return 2 * (self.rows * (width + PADDING) + keys)


def padded(size: int) -> int:
    """A head's size, filled up with zeros to whole products."""
    return -(-size // TERMS) * TERMS


def rule(problem: Attention, shared_memory: int, rows: int | None = None) -> Sizes:
    """The largest pieces that fit a block's shared memory and registers.

    Args:
        problem: what is computed.
        shared_memory: bytes of a block.
        rows: of q, where they are known. So few as in a step of decoding leave most of a GPU idle,
            so there blocks share the columns.
    """
    warps, parts = 4, 1
    if rows is not None and rows <= ROWS:
        warps, parts = 1, 2
        while parts < _MOST_PARTS and parts * problem.heads < _BUSY:
            parts *= 2
    for columns in (64, 32, 16):
        columns = columns if problem.value_size <= 128 else min(columns, 32)
        sizes = Sizes(warps, columns, parts=parts)
        if sizes.shared_memory(problem) <= shared_memory:
            return sizes
    return Sizes(warps, 16, 1, parts)
