"""The sum over K of one tile: products of one stage after the other.

A stage's products are issued while those of the stage before are still under way; only then is the
stage before released. With promotion, a stage's sums are complete before the next begins, and the
other consumer keeps the tensor cores busy meanwhile.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from tvm import tirx
from tvm.tirx.script import builder

from ..intrinsics import mbarrier, tma, wgmma
from .plan import Memory, Plan
from .tiles import Walk

#: TVM's builder; its annotations are narrower than what it gives.
T: Any = builder


@dataclasses.dataclass(frozen=True, eq=False)
class Consumer:
    """A warpgroup that multiplies.

    Attributes:
        plan: the kernel.
        memory: where the stages are.
        walk: the block's tiles.
        number: of the consumer, int32.
        thread: within the warpgroup, int32.
        ring: the stage that comes next.
    """

    plan: Plan
    memory: Memory
    walk: Walk
    number: Any
    thread: Any
    ring: mbarrier.Ring

    @property
    def first_row(self) -> Any:
        """The first row of the tile that is this consumer's."""
        if self.plan.sizes.schedule == "pingpong":
            return tirx.const(0, "int32")
        return self.number * (self.plan.sizes.blocks * wgmma.ROWS)

    def tile(self, issued: Callable[[], None]) -> Any:
        """Emit the sums of a tile: registers, in the order of `wgmma` for each 64 rows.

        Args:
            issued: called where the last product of the tile has been issued.
        """
        dtype = self.plan.kind.register
        sums = T.alloc_buffer((self.plan.sizes.sums,), dtype, scope="local")
        if self.plan.promotes:
            total = T.alloc_buffer((self.plan.sizes.sums,), dtype, scope="local")
            self._promoted(sums, total, issued)
            return total
        self._overlapped(sums, issued)
        return sums

    def _overlapped(self, sums: Any, issued: Callable[[], None]) -> None:
        before = T.alloc_buffer((1,), "int32", scope="local")
        self._clear(sums)
        with T.serial(0, self.walk.steps) as step:
            self._stage(sums, 1)
            wgmma.wait(1)
            with T.If(step > 0), T.Then():
                self._release(before[0])
            T.buffer_store(before, self.ring.stage[0], [0])
            self.ring.advance()
        issued()
        wgmma.settle(_elements(sums), self.plan.kind.register)
        self._release(before[0])

    def _promoted(self, sums: Any, total: Any, issued: Callable[[], None]) -> None:
        self._clear(sums)
        self._clear(total)
        with T.serial(0, self.walk.steps):
            self._stage(sums, 0)
            wgmma.settle(_elements(sums), self.plan.kind.register)
            self._release(self.ring.stage[0])
            for place in range(self.plan.sizes.sums):
                T.buffer_store(total, total[place] + sums[place], [place])
            self.ring.advance()
        issued()

    def _stage(self, sums: Any, accumulate: int) -> None:
        """Wait for the ring's stage and issue its products, as one group."""
        plan, stage = self.plan, self.ring.stage[0]
        mbarrier.wait(self.memory.full(stage), self.ring.parity[0])
        row = tirx.Cast("uint32", self.first_row * tma.ROW)
        left = T.Bind(wgmma.descriptor(self.memory.left(stage) + row))
        right = T.Bind(wgmma.descriptor(self.memory.right(stage)))
        wgmma.fence()
        each = plan.sizes.columns // 2
        elements = _elements(sums)
        for slice_ in range(tma.ROW // wgmma.BYTES):
            along = slice_ * (wgmma.BYTES >> 4)
            for block in range(plan.sizes.blocks):
                down = block * (wgmma.ROWS * tma.ROW >> 4)
                wgmma.product(
                    plan.kind,
                    plan.sizes.columns,
                    elements[block * each : (block + 1) * each],
                    left + T.uint64(down + along),
                    right + T.uint64(along),
                    accumulate or int(slice_ > 0),
                )
        wgmma.commit()

    def _clear(self, buffer: Any) -> None:
        dtype = self.plan.kind.register
        for place in range(self.plan.sizes.sums):
            T.buffer_store(buffer, tirx.const(0, dtype), [place])
        wgmma.defined(_elements(buffer), dtype)

    def _release(self, stage: Any) -> None:
        """Say that this warp needs a stage no more, to all blocks that copy into it."""
        sizes = self.plan.sizes
        blocks = sizes.cluster_rows * sizes.cluster_columns
        with T.If(self.thread % 32 == 0), T.Then():
            if blocks == 1:
                mbarrier.arrive(self.memory.empty(stage))
            else:
                for rank in range(blocks):
                    mbarrier.arrive_at(self.memory.empty(stage), tirx.const(rank, "int32"))


def _elements(buffer: Any) -> list[Any]:
    return [buffer[place] for place in range(int(buffer.shape[0]))]
