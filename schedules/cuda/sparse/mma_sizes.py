"""The sizes of a kernel of ``mma.sp``, and which of them fit."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from ..architecture import Architecture
from ..intrinsics.mma import COLUMNS, ROWS
from ..mma.sizes import Sizes
from .layout import STEP

#: Shared memory for an output's step: 64 bytes of kept elements, and metadata of 16 at most.
OUTPUT_BYTES = STEP // 2 + STEP // 8

#: Of a thread's 255 registers: beyond this many sums there are none left for operands.
_MOST_SUMS = 128


@dataclasses.dataclass(frozen=True)
class SparseSizes(Sizes):
    """As for dense products; but the instruction's rows are outputs, a block's `columns`.

    `depth` is a multiple of `STEP` bytes along K of x; slices take whole steps.
    """

    @property
    def row_tiles(self) -> int:
        """Groups of 8 rows of x of a warp."""
        return self.rows // (self.warps_down * COLUMNS)

    @property
    def column_tiles(self) -> int:
        """Tiles of 16 outputs of a warp."""
        return self.columns // (self.warps_across * ROWS)

    @property
    def stage_bytes(self) -> int:
        """Of shared memory for one step of `depth` bytes."""
        return self.rows * self.depth + self.columns * OUTPUT_BYTES * (self.depth // STEP)

    def valid(self, architecture: Architecture) -> bool:
        """Whether everything divides and fits."""
        return (
            self.rows % (self.warps_down * COLUMNS) == 0
            and self.columns % (self.warps_across * ROWS) == 0
            and self.depth % (STEP * self.slices) == 0
            and self.sums <= _MOST_SUMS
            and self.threads <= 512
            and self.stages >= 2
            and self.shared_bytes <= architecture.shared_memory
        )


#: rows of x, outputs, warps over rows, warps over outputs.
_TILES = (
    (8, 16, 1, 1),
    (8, 32, 1, 2),
    (8, 64, 1, 2),
    (16, 32, 1, 1),
    (16, 64, 1, 2),
    (16, 128, 1, 4),
    (32, 64, 1, 2),
    (32, 128, 1, 4),
    (64, 64, 1, 4),
    (64, 64, 2, 2),
    (64, 128, 2, 2),
    (128, 64, 2, 2),
    (128, 128, 2, 2),
    (128, 128, 2, 4),
    (128, 256, 2, 4),
    (256, 128, 4, 2),
)

#: bytes along K of a step, slices.
_DEPTHS = ((128, 1), (256, 1), (256, 2), (512, 4), (1024, 8))


def space(outputs: int, architecture: Architecture) -> Iterator[SparseSizes]:
    """All sizes worth a try for this many outputs, small tiles first."""
    for rows, columns, down, across in _TILES:
        for depth, slices in _DEPTHS:
            for stages in (2, 3, 4, 6):
                sizes = SparseSizes(rows, columns, depth, down, across, slices, stages)
                sensible = sizes.warps >= 2 and (slices == 1 or sizes.warps <= 8)
                if sizes.valid(architecture) and sensible and columns < max(2 * outputs, 33):
                    yield sizes
