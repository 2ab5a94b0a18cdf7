"""The sizes of a tensor-core kernel, and which of them fit."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from ..architecture import Architecture
from ..intrinsics.mma import BYTES, COLUMNS, ROWS

#: Of a thread's 255: beyond this many the compiler has none left for addresses and operands.
_SUM_REGISTERS = 128

#: What a block loses of a multiprocessor's shared memory besides its own.
_RESERVED = 1024


@dataclasses.dataclass(frozen=True)
class Sizes:
    """A block's tile, how warps share it, and how many tiles are on their way.

    Attributes:
        rows: of the results that a block makes.
        columns: of them.
        depth: bytes along K of a step.
        warps_down: into how many parts the rows go.
        warps_across: into how many the columns go.
        slices: into how many each step's depth goes: warps that sum different terms of the same
            results, added up in a fixed order at the end.
        stages: steps in shared memory.
    """

    rows: int
    columns: int
    depth: int
    warps_down: int
    warps_across: int
    slices: int
    stages: int

    @property
    def warps(self) -> int:
        """Of a block."""
        return self.warps_down * self.warps_across * self.slices

    @property
    def threads(self) -> int:
        """Of a block."""
        return 32 * self.warps

    @property
    def row_tiles(self) -> int:
        """Products of a warp, down."""
        return self.rows // (self.warps_down * ROWS)

    @property
    def column_tiles(self) -> int:
        """Products of a warp, across."""
        return self.columns // (self.warps_across * COLUMNS)

    @property
    def sums(self) -> int:
        """Results of a lane."""
        return self.row_tiles * self.column_tiles * 4

    @property
    def stage_bytes(self) -> int:
        """Of shared memory for one step."""
        return (self.rows + self.columns) * self.depth

    @property
    def shared_bytes(self) -> int:
        """Of shared memory: all stages, or what the slices exchange at the end."""
        exchanged = (self.slices - 1) * self.warps_down * self.warps_across * 32 * self.sums * 4
        return max(self.stages * self.stage_bytes, exchanged)

    def resident(self, architecture: Architecture) -> int:
        """Blocks that a multiprocessor holds at a time, by the cost model's guess of registers."""
        registers = (self.sums + 64) * self.threads
        return max(
            1,
            min(
                architecture.shared_memory_sm // (self.shared_bytes + _RESERVED),
                architecture.registers // registers,
                1536 // self.threads,
            ),
        )

    def valid(self, architecture: Architecture) -> bool:
        """Whether everything divides and fits."""
        return (
            self.rows % (self.warps_down * ROWS) == 0
            and self.columns % (self.warps_across * COLUMNS) == 0
            and self.depth % (BYTES * self.slices) == 0
            and self.sums <= _SUM_REGISTERS
            and self.threads <= 512
            and self.stages >= 2
            and self.shared_bytes <= architecture.shared_memory
        )


def space(outputs: int, architecture: Architecture) -> Iterator[Sizes]:
    """All sizes worth a try for this many outputs, small tiles first."""
    for rows, columns, down, across in _TILES:
        for depth, slices in _DEPTHS:
            for stages in (2, 3, 4, 6, 8):
                sizes = Sizes(rows, columns, depth, down, across, slices, stages)
                if sizes.valid(architecture) and _sensible(sizes, outputs):
                    yield sizes


#: rows, columns, warps down, warps across.
_TILES = (
    (16, 16, 1, 1),
    (16, 32, 1, 1),
    (16, 64, 1, 2),
    (16, 128, 1, 4),
    (32, 32, 1, 1),
    (32, 64, 1, 2),
    (32, 128, 1, 4),
    (64, 32, 2, 1),
    (64, 64, 2, 2),
    (64, 128, 2, 2),
    (64, 256, 1, 4),
    (128, 64, 2, 2),
    (128, 128, 2, 2),
    (128, 128, 2, 4),
    (128, 256, 2, 4),
    (256, 128, 4, 2),
)

#: bytes along K of a step, slices.
_DEPTHS = ((64, 1), (128, 1), (128, 2), (128, 4), (256, 4), (256, 8))


def _sensible(sizes: Sizes, outputs: int) -> bool:
    """Slices only where warps are few; no tile much wider than the matrix."""
    if sizes.slices > 1 and sizes.warps > 8:
        return False
    if sizes.warps < 2:
        return False
    return sizes.columns <= 16 or sizes.columns < 2 * outputs
