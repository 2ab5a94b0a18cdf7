"""The warpgroup that copies: it fills the ring of stages, tile after tile.

One thread issues all copies. It runs ahead of the products as far as the ring is long, into the
next tile while the consumers finish the last one.
"""

from __future__ import annotations

from typing import Any

from tvm import tirx
from tvm.tirx.script import builder

from ..intrinsics import mbarrier, tma
from .plan import Memory, Plan
from .tiles import Walk

#: TVM's builder; its annotations are narrower than what it gives.
T: Any = builder


def produce(plan: Plan, memory: Memory, walk: Walk, maps: tuple[Any, Any]) -> None:
    """Copy all stages of all of the block's tiles.

    Args:
        plan: the kernel.
        memory: where to.
        walk: which tiles.
        maps: tensor maps of the left and the right operand.
    """
    sizes = plan.sizes
    ring = mbarrier.Ring.start(sizes.stages)
    with T.serial(0, walk.count) as number:
        row, column = walk.place(number)
        # A block of a cluster copies its share of what the cluster has in common, to all.
        row = T.Bind(row + walk.column_rank * plan.left_box[0])
        column = T.Bind(column + walk.row_rank * plan.right_box[0])
        with T.serial(0, walk.steps) as step:
            stage = ring.stage[0]
            mbarrier.wait(memory.empty(stage), ring.parity[0] ^ 1)
            mbarrier.expect(memory.full(stage), sizes.stage_bytes)
            along = T.Bind((walk.first_step + step) * plan.step)
            left_share = walk.column_rank * (plan.left_box[0] * tma.ROW)
            right_share = walk.row_rank * (plan.right_box[0] * tma.ROW)
            _load(
                memory.left(stage) + tirx.Cast("uint32", left_share),
                maps[0],
                (row, along),
                memory.full(stage),
                sizes.cluster_columns > 1,
            )
            _load(
                memory.right(stage) + tirx.Cast("uint32", right_share),
                maps[1],
                (column, along),
                memory.full(stage),
                sizes.cluster_rows > 1,
            )
            ring.advance()


def _load(
    destination: Any, tensor_map: Any, place: tuple[Any, Any], barrier: Any, shared: bool
) -> None:
    if shared:
        tma.load_shared(destination, tensor_map, place, barrier, tirx.const(3, "int32"))
    else:
        tma.load(destination, tensor_map, place, barrier)
