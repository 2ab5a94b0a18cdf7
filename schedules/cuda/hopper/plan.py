"""Everything about a kernel that is known before it is written."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

from tvm import tirx

from ..architecture import Architecture
from ..intrinsics import mbarrier, tma, wgmma
from ..problem import Linear
from . import sizes as fits
from .sizes import PIECE, Sizes


@dataclasses.dataclass(frozen=True, eq=False)
class Plan:
    """A product with its sizes, and where things lie in a block's shared memory.

    In shared memory, from a multiple of 1024 on: the stages' rows, the stages' columns, the pieces
    in which results leave, barriers. "Left" is the operand with the tile's rows: x, or the weight
    if they are swapped; "right" is the other.
    """

    problem: Linear
    architecture: Architecture
    sizes: Sizes

    @functools.cached_property
    def kind(self) -> wgmma.Kind:
        """The products' types."""
        x, weight = self.problem.activation, self.weight_dtype
        return wgmma.Kind(weight, x) if self.sizes.swap else wgmma.Kind(x, weight)

    @property
    def weight_dtype(self) -> str:
        """The weight's dtype."""
        return self.problem.weight.arrays(self.problem.outputs, self.problem.inputs)[0].dtype

    @property
    def promotes(self) -> bool:
        """Whether sums are promoted."""
        return fits.promotes(self.problem, self.sizes)

    @property
    def staged(self) -> bool:
        """Whether results leave through shared memory."""
        return fits.staged(self.problem, self.sizes)

    @property
    def step(self) -> int:
        """Elements of K in a stage."""
        return tma.ROW // self.kind.item

    @property
    def steps(self) -> int:
        """Stages that a tile takes, over all blocks of a split."""
        return fits.steps(self.problem)

    @property
    def left_box(self) -> tuple[int, int]:
        """Rows and elements of K that one copy of the left operand moves."""
        return self.sizes.rows // self.sizes.cluster_columns, self.step

    @property
    def right_box(self) -> tuple[int, int]:
        """The same of the right one."""
        return self.sizes.columns // self.sizes.cluster_rows, self.step

    @property
    def piece(self) -> int:
        """Columns of a piece in which results leave: 128 bytes."""
        return tma.ROW // fits.output_bytes(self.problem)

    @property
    def clips_columns(self) -> bool:
        """Whether tiles may have columns that the result has not."""
        sizes = self.sizes
        return sizes.swap or self.problem.outputs % (sizes.columns * sizes.cluster_columns) != 0

    @property
    def right_place(self) -> int:
        """Where the right operand's stages begin."""
        return self.sizes.stages * self.sizes.rows * tma.ROW

    @property
    def pieces_place(self) -> int:
        """Where the results' pieces begin."""
        return self.sizes.stages * self.sizes.stage_bytes

    @property
    def barriers_place(self) -> int:
        """Where the barriers begin: full, empty, turns."""
        return self.pieces_place + (2 * PIECE * self.sizes.consumers if self.staged else 0)

    @property
    def shared_bytes(self) -> int:
        """Of a block, with what aligning its begin may cost."""
        return fits.shared_bytes(self.problem, self.sizes)

    @property
    def consumer_warps(self) -> int:
        """Warps that release a stage: of a tile's consumers, in all blocks that share loads."""
        groups = 1 if self.sizes.schedule == "pingpong" else self.sizes.consumers
        return 4 * groups * self.sizes.cluster_rows * self.sizes.cluster_columns

    def extents(self, m: Any) -> tuple[Any, Any]:
        """int32 rows and columns of the whole result in tiles' terms."""
        rows, outputs = tirx.Cast("int32", m), tirx.const(self.problem.outputs, "int32")
        return (outputs, rows) if self.sizes.swap else (rows, outputs)


@dataclasses.dataclass(frozen=True, eq=False)
class Memory:
    """Addresses in a block's shared memory, uint32 expressions.

    Attributes:
        plan: what lies where.
        base: a multiple of 1024.
    """

    plan: Plan
    base: Any

    def _at(self, place: Any) -> Any:
        return self.base + tirx.Cast("uint32", place)

    def left(self, stage: Any) -> Any:
        """The left operand's tile."""
        return self._at(stage * (self.plan.sizes.rows * tma.ROW))

    def right(self, stage: Any) -> Any:
        """The right operand's tile."""
        return self._at(self.plan.right_place + stage * (self.plan.sizes.columns * tma.ROW))

    def piece(self, consumer: Any, number: int) -> Any:
        """A buffer for results: 0 or 1 of a consumer."""
        return self._at(self.plan.pieces_place + (consumer * 2 + number) * PIECE)

    def full(self, stage: Any) -> Any:
        """The barrier that says a stage's bytes have come."""
        return self._at(self.plan.barriers_place + stage * mbarrier.BYTES)

    def empty(self, stage: Any) -> Any:
        """The barrier that says a stage may be overwritten."""
        place = self.plan.barriers_place + self.plan.sizes.stages * mbarrier.BYTES
        return self._at(place + stage * mbarrier.BYTES)

    def turn(self, consumer: Any) -> Any:
        """The barrier that says a consumer may multiply (ping-pong)."""
        place = self.plan.barriers_place + 2 * self.plan.sizes.stages * mbarrier.BYTES
        return self._at(place + consumer * mbarrier.BYTES)
