"""What a kernel of ``wgmma.sp`` has that one of `hopper` has not: sizes, and where things lie.

The weight always gives the tile's rows (`swap`). In shared memory, from a multiple of 1024 on: the
stages' pieces of the weight, the stages' rows of x, barriers.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from ..architecture import Architecture
from ..hopper import sizes as fits
from ..hopper.plan import Memory, Plan
from ..hopper.sizes import Sizes
from ..intrinsics import mbarrier, tma
from ..problem import Linear
from .layout import OUTPUTS, VALUES, Sparse24

#: Metadata of 64 outputs and a step, with one-byte elements.
_MOST_METADATA = 1024


@dataclasses.dataclass(frozen=True)
class SparseSizes(Sizes):
    """As for dense products, always with `swap`: rows are outputs, columns are rows of x."""

    swap: bool = True

    @property
    def stage_bytes(self) -> int:
        """Of a stage, with the most metadata that there may be."""
        pieces = self.rows // OUTPUTS * (VALUES + _MOST_METADATA)
        return pieces + self.columns * tma.ROW


class SparsePlan(Plan):
    """Everything about a kernel that is known before it is written."""

    @property
    def layout(self) -> Sparse24:
        """The weight's."""
        weight = self.problem.weight
        assert isinstance(weight, Sparse24)
        return weight

    @property
    def weight_dtype(self) -> str:
        """Of the weight's elements."""
        return self.layout.dtype

    @property
    def left_bytes(self) -> int:
        """Of a stage's pieces."""
        return self.sizes.rows // OUTPUTS * self.layout.piece_bytes

    @property
    def transferred(self) -> int:
        """Bytes that a stage waits for."""
        return self.left_bytes + self.sizes.columns * tma.ROW

    @property
    def right_place(self) -> int:
        """Where the stages' rows of x begin."""
        return -(-self.sizes.stages * self.left_bytes // tma.PATTERN) * tma.PATTERN

    @property
    def pieces_place(self) -> int:
        """Where the stages end."""
        return self.right_place + self.sizes.stages * self.sizes.columns * tma.ROW

    @property
    def shared_bytes(self) -> int:
        """Of a block, with what aligning its begin may cost."""
        barriers = (2 * self.sizes.stages + 2) * mbarrier.BYTES
        return tma.PATTERN + self.pieces_place + barriers


class SparseMemory(Memory):
    """Addresses in a block's shared memory, uint32 expressions."""

    plan: SparsePlan

    def left(self, stage: Any) -> Any:
        """The stage's first piece."""
        return self._at(stage * self.plan.left_bytes)


def flaw(problem: Linear, architecture: Architecture, sizes: SparseSizes) -> str | None:
    """Why there is no kernel of these sizes, or None."""
    if not sizes.swap:
        return "the sparse operand is the one with the tile's rows"
    if sizes.cluster_columns != 1:
        return "blocks share rows of x, not pieces of the weight"
    reason = fits.flaw(problem, architecture, sizes)
    if reason is not None:
        return reason
    if SparsePlan(problem, architecture, sizes).shared_bytes > architecture.shared_memory:
        return "too much shared memory"
    return None
