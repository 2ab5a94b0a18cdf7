"""What there is to choose for a kernel of `wgmma`, and what fits.

A block has one warpgroup that copies (the producer) and one or two that multiply (the consumers).
``cooperative``: consumers share a tile, 64 rows after 64 rows. ``pingpong``: each has tiles of its
own, and while one finishes its tile the other multiplies.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Literal

from ..architecture import Architecture
from ..intrinsics import mbarrier, tma, wgmma
from ..problem import Linear

Schedule = Literal["cooperative", "pingpong"]

#: Bytes of each buffer through which finished 64-row pieces leave; a consumer has two.
PIECE = wgmma.ROWS * tma.ROW

#: Registers per thread after ``setmaxnreg``, with two consumers: together no more than there are.
PRODUCER_REGISTERS, CONSUMER_REGISTERS = 40, 232

#: Sums per thread that leave room for addresses and the epilogue, and where the epilogue has more
#: addresses than usual. With promotion there are two sets of sums.
_MOST_SUMS, _MOST_SUMS_BUSY = 128, 96
_MOST_PROMOTED, _MOST_PROMOTED_BUSY = 96, 64


@dataclasses.dataclass(frozen=True)
class Sizes:
    """One kernel.

    Attributes:
        rows: of a tile: outputs' rows m, or with `swap` their columns n. 64, 128 or 256.
        columns: of a tile.
        stages: tiles of K, 128 bytes each, that may be on their way or in use.
        schedule: what the consumers share.
        cluster_rows: blocks, one below the other, that load their common columns once.
        cluster_columns: blocks, side by side, that load their common rows once.
        split: blocks of a cluster that share the sum over K; added in a fixed order.
        swap: whether the weight gives the tile's rows. Then few rows of x make narrow tiles.
        group: rows of tiles that are visited together, so that their data stays in the cache.
        promote: FP8 only: after 128 of K, sums are added to float32 registers by ordinary adds,
            because the tensor core adds with fewer bits.
    """

    rows: int
    columns: int
    stages: int
    schedule: Schedule = "cooperative"
    cluster_rows: int = 1
    cluster_columns: int = 1
    split: int = 1
    swap: bool = False
    group: int = 8
    promote: bool = True

    @property
    def consumers(self) -> int:
        """Warpgroups that multiply."""
        return 2 if self.schedule == "pingpong" or self.rows > wgmma.ROWS else 1

    @property
    def threads(self) -> int:
        """Of a block."""
        return wgmma.THREADS * (1 + self.consumers)

    @property
    def blocks(self) -> int:
        """Pieces of 64 rows that each consumer has of a tile."""
        shared_by = self.consumers if self.schedule == "cooperative" else 1
        return self.rows // wgmma.ROWS // shared_by

    @property
    def sums(self) -> int:
        """Registers of a thread for a tile."""
        return self.blocks * self.columns // 2

    @property
    def cluster(self) -> int:
        """Blocks of a cluster."""
        return self.cluster_rows * self.cluster_columns * self.split

    @property
    def finishers(self) -> int:
        """Blocks of a split that finish a part of the columns: as many as share them evenly."""
        return math.gcd(self.columns // 8, self.split)

    @property
    def groups(self) -> int:
        """Groups of eight columns that a block finishes."""
        return self.columns // 8 // self.finishers

    @property
    def stage_bytes(self) -> int:
        """Of a stage: 128 bytes along K of the tile's rows and columns."""
        return (self.rows + self.columns) * tma.ROW


def promotes(problem: Linear, sizes: Sizes) -> bool:
    """Whether sums are promoted."""
    return sizes.promote and problem.activation.startswith("float8")


def staged(problem: Linear, sizes: Sizes) -> bool:
    """Whether results leave through shared memory and the copy engine.

    Results of four bytes fill whole sectors when threads store them, and a row that is no multiple
    of 16 bytes has no tensor map.
    """
    item = output_bytes(problem)
    return (
        item < 4
        and not sizes.swap
        and problem.outputs * item % 16 == 0
        and sizes.groups * 8 * item % tma.ROW == 0
    )


def output_bytes(problem: Linear) -> int:
    """Of an element of y."""
    bits = {"int32": 32, "float32": 32, "float16": 16, "bfloat16": 16, "int8": 8, "uint8": 8}
    return bits.get(problem.epilogue.dtype, 8) // 8


def steps(problem: Linear) -> int:
    """Tiles of K, the last one filled with zeros."""
    item = wgmma.Kind(problem.activation, problem.activation).item
    return -(-problem.inputs * item // tma.ROW)


def shared_bytes(problem: Linear, sizes: Sizes) -> int:
    """Shared memory of a block, with what aligning its begin may cost."""
    pieces = 2 * PIECE * sizes.consumers if staged(problem, sizes) else 0
    barriers = (2 * sizes.stages + 2) * mbarrier.BYTES
    return tma.PATTERN + sizes.stages * sizes.stage_bytes + pieces + barriers


def flaw(problem: Linear, architecture: Architecture, sizes: Sizes) -> str | None:
    """Why there is no kernel of these sizes, or None."""
    kind = wgmma.Kind(problem.activation, problem.activation)
    if sizes.rows not in (64, 128, 256) or sizes.columns not in kind.columns():
        return "no such tile"
    if sizes.blocks not in (1, 2):
        return "a consumer takes 64 or 128 rows"
    if sizes.stages < 2:
        return "fewer than two stages overlap nothing"
    if sizes.sums > _most_sums(problem, sizes):
        return "too many sums for a thread's registers"
    if shared_bytes(problem, sizes) > architecture.shared_memory:
        return "too much shared memory"
    return _cluster_flaw(problem, sizes)


def busy(problem: Linear) -> bool:
    """Whether the epilogue needs many addresses: it has matrices, or stores columns one by one."""
    matrix = any(operand.extends == "matrix" for operand in problem.epilogue.operands)
    return matrix or problem.outputs % 2 == 1


def _most_sums(problem: Linear, sizes: Sizes) -> int:
    if promotes(problem, sizes):
        return _MOST_PROMOTED_BUSY if busy(problem) else _MOST_PROMOTED
    return _MOST_SUMS_BUSY if busy(problem) else _MOST_SUMS


def _cluster_flaw(problem: Linear, sizes: Sizes) -> str | None:
    shared_loads = sizes.cluster_rows * sizes.cluster_columns
    if shared_loads not in (1, 2):
        return "loads are shared by two blocks or not at all"
    if sizes.columns // sizes.cluster_rows % 8:
        return "a block loads whole groups of eight columns"
    if sizes.split == 1:
        return None
    if sizes.split not in (2, 4, 8) or shared_loads > 1 or sizes.schedule == "pingpong":
        return "K is split among 2, 4 or 8 blocks that share nothing else"
    if sizes.rows * sizes.columns * 4 > sizes.stages * sizes.stage_bytes:
        return "the stages do not hold the sums that blocks exchange"
    if sizes.split > steps(problem):
        return "a block of the split would have nothing to add"
    return None
