"""The sizes of a kernel of ``mma.sp`` with few-bit weights."""

from __future__ import annotations

from collections.abc import Iterator

from ..architecture import Architecture
from ..intrinsics.mma import COLUMNS, ROWS
from ..weight_only import FewBit
from ..weight_only.planes import CHUNK
from .few_bit import WORDS
from .mma_sizes import SparseSizes

#: Bytes along K of x in a chunk of 128 inputs.
STEP = 256

#: For sums, those of a group, and chunks on their way: what is left of 255 is for decoding.
_MOST_REGISTERS = 124


class DecodeSizes(SparseSizes):
    """As for other sparse products; a slice takes one chunk of each step, `depth` bytes long."""

    @property
    def stage_bytes(self) -> int:
        """Of shared memory for one step: rows of x only."""
        return self.rows * self.depth

    def valid(self, architecture: Architecture) -> bool:
        """Whether everything divides and fits."""
        return (
            self.rows % (self.warps_down * COLUMNS) == 0
            and self.columns % (self.warps_across * ROWS) == 0
            and self.depth == STEP * self.slices
            and self.threads <= 512
            and self.stages >= 2
            and self.shared_bytes <= architecture.shared_memory
        )

    def registers(self, layout: FewBit) -> int:
        """Of a thread: sums twice, as groups have their own, and chunks on their way."""
        inside = 1 if layout.group is None else max(1, CHUNK // layout.group)
        scales = 0 if layout.group is None else 2 if layout.scale == "float32" else 1
        chunk = layout.bits + WORDS + inside * (scales + layout.zero_points)
        return 2 * self.sums + chunk * self.column_tiles * self.stages


#: rows of x, outputs, warps over outputs, slices.
_TILES = (
    (8, 16, 1, 4),
    (8, 16, 1, 8),
    (8, 32, 1, 8),
    (8, 32, 2, 4),
    (16, 32, 1, 8),
    (16, 32, 2, 4),
    (16, 64, 2, 4),
    (32, 32, 2, 2),
    (32, 32, 2, 4),
    (32, 64, 2, 2),
    (32, 64, 4, 2),
    (64, 64, 4, 1),
    (64, 64, 4, 2),
    (64, 128, 8, 1),
)


def space(layout: FewBit, outputs: int, architecture: Architecture) -> Iterator[DecodeSizes]:
    """All sizes worth a try for this many outputs, small tiles first."""
    for rows, columns, across, slices in _TILES:
        for stages in (2, 3, 4, 6):
            sizes = DecodeSizes(rows, columns, STEP * slices, 1, across, slices, stages)
            if not sizes.valid(architecture) or sizes.registers(layout) > _MOST_REGISTERS:
                continue
            if columns < max(2 * outputs, 33):
                yield sizes
