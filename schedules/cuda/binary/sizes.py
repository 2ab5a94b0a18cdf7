"""The sizes of a binary product's kernel, and which are chosen where nothing was measured."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from ..architecture import Architecture
from ..intrinsics.mma import BYTES, COLUMNS, ROWS
from .problem import BinaryProduct

#: Sums of a lane, over all weights of planes: beyond this they are folded after every step.
_SUMS = 128

#: Results of a lane where they are: with more, the compiler spills to have more blocks.
_FOLDED = 16

#: Of a thread's registers, for sums and operands: beyond this addresses are spilled.
_REGISTERS = 176

#: Words of the weights' planes that a warp keeps while it goes through the activations' planes.
_KEPT = 32


@dataclasses.dataclass(frozen=True)
class Sizes:
    """A block's tile, how warps share it, and how many tiles are on their way.

    Attributes:
        rows: of the results that a block makes.
        columns: of them.
        depth: bytes along K of each plane in a step.
        warps_down: into how many parts the rows go.
        warps_across: into how many the columns go.
        stages: steps in shared memory.
    """

    rows: int
    columns: int
    depth: int
    warps_down: int
    warps_across: int
    stages: int

    @property
    def threads(self) -> int:
        """Of a block."""
        return 32 * self.warps_down * self.warps_across

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
    def parts(self) -> int:
        """Products of one plane with another along a step."""
        return self.depth // BYTES

    def stage_bytes(self, problem: BinaryProduct) -> int:
        """Of shared memory for one step."""
        return (self.rows * problem.x.bits + self.columns * problem.w.bits) * self.depth

    def separate(self, problem: BinaryProduct) -> bool:
        """Whether sums of each weight of planes have registers of their own until the end."""
        return self.sums * len(classes(problem)) <= _SUMS

    def keeps_weights(self, problem: BinaryProduct) -> bool:
        """Whether all planes of a step's weights are in registers at once."""
        words = 2 * self.column_tiles * self.parts * problem.w.bits
        return self.separate(problem) and words <= _KEPT

    def registers(self, problem: BinaryProduct) -> int:
        """Of a thread, for counts, finished sums and operands."""
        planes = problem.w.bits if self.keeps_weights(problem) else 1
        operands = self.parts * (4 * self.row_tiles + 2 * self.column_tiles * planes)
        sums = len(classes(problem)) if self.separate(problem) else 2
        rows = problem.x.bits if self.separate(problem) else 2
        ones = 4 * self.row_tiles * rows if problem.w.offset else 0
        return sums * self.sums + operands + ones

    def fits(self, problem: BinaryProduct, architecture: Architecture) -> bool:
        """Whether the memories suffice, and a packed word's bits are one warp's."""
        shared = self.stages * self.stage_bytes(problem)
        whole = problem.output is None or self.column_tiles % 4 == 0
        few = self.registers(problem) <= _REGISTERS
        few = few and (self.separate(problem) or (self.sums <= _FOLDED and self.depth <= 64))
        return shared <= architecture.shared_memory and whole and few


def classes(problem: BinaryProduct) -> list[int]:
    """The distinct weights that pairs of planes have."""
    return sorted({a * b for a in problem.x.weights for b in problem.w.weights})


_TILES = (
    (16, 64, 1, 2),
    (16, 128, 1, 4),
    (32, 64, 1, 2),
    (64, 64, 2, 2),
    (64, 128, 2, 2),
    (128, 128, 4, 2),
)


def space(problem: BinaryProduct, architecture: Architecture) -> Iterator[Sizes]:
    """All sizes that fit, small tiles first."""
    for rows, columns, down, across in _TILES:
        for depth in (32, 64, 128):
            for stages in (2, 3, 4):
                sizes = Sizes(rows, columns, depth, down, across, stages)
                if sizes.fits(problem, architecture):
                    yield sizes


def rule(problem: BinaryProduct, architecture: Architecture, rows: int) -> Sizes:
    """The largest tiles that still give every multiprocessor a block; of equal ones the deepest.

    Where no tile does, the one with the most blocks.
    """
    blocks = {
        sizes: -(-rows // sizes.rows) * -(-problem.outputs // sizes.columns)
        for sizes in space(problem, architecture)
    }
    enough = [s for s in blocks if blocks[s] >= architecture.multiprocessors]
    if not enough:
        most = max(blocks.values())
        enough = [sizes for sizes in blocks if blocks[sizes] == most]
    # Two blocks of a multiprocessor hide each other's waits.
    half = architecture.shared_memory_sm // 2 - 1024
    small = [s for s in enough if s.stages * s.stage_bytes(problem) <= half] or enough
    return max(small, key=lambda s: (s.rows * s.columns, s.depth, s.stages))
