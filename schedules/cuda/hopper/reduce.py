"""The sum over the blocks of a split: through their shared memory, in a fixed order.

Each block lays its sums where its stages were. When all have, block number r of the cluster adds
the r-th part of the columns, over the blocks in their order, so results are the same every time.
Where there are fewer parts than blocks, the last blocks add nothing.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from tvm import tirx
from tvm.tirx.script import builder

from ..intrinsics import mbarrier, wgmma
from ..intrinsics.ptx import issue
from ..intrinsics.registers import held
from .main_loop import Consumer

#: TVM's builder; its annotations are narrower than what it gives.
T: Any = builder

#: The barrier of all consumers; each one's own come after it.
_ALL = 1

_QUAD = 4


def added(consumer: Consumer, sums: Any) -> Any:
    """Emit the exchange: this block's part of the columns' sums over all blocks.

    Registers are in the order of `wgmma` for each 64 rows, with `Sizes.groups` groups of columns.
    """
    plan = consumer.plan
    sizes = plan.sizes
    threads = sizes.consumers * wgmma.THREADS
    me = consumer.number * wgmma.THREADS + consumer.thread
    all_groups = sizes.columns // 8
    dtype = plan.kind.register
    kind = "f32" if dtype == "float32" else "u32"

    def address(block: int, group: Any) -> Any:
        quad = (block * all_groups + group) * threads + me
        return consumer.memory.left(0) + tirx.Cast("uint32", quad * (4 * _QUAD))

    # The other consumer may still read the stages.
    mbarrier.named_sync(_ALL, threads)
    for block in range(sizes.blocks):
        for group in range(all_groups):
            start = (block * all_groups + group) * _QUAD
            quad = [sums[start + place] for place in range(_QUAD)]
            issue(f"st.shared.v4.{kind}", address(block, group), *quad)
    mbarrier.cluster_sync()
    total = T.alloc_buffer((sizes.blocks * sizes.groups * _QUAD,), dtype, scope="local")
    with finishing(consumer):
        part = T.alloc_buffer((_QUAD,), dtype, scope="local")
        for block in range(sizes.blocks):
            for group in range(sizes.groups):
                mine = held(address(block, consumer.walk.rank * sizes.groups + group))
                for rank in range(sizes.split):
                    place = mbarrier.remote(mine, tirx.const(rank, "int32"))
                    issue(f"ld.shared::cluster.v4.{kind}", *[part[i] for i in range(_QUAD)], place)
                    for i in range(_QUAD):
                        at = (block * sizes.groups + group) * _QUAD + i
                        added_up = part[i] if rank == 0 else total[at] + part[i]
                        T.buffer_store(total, added_up, [at])
    # No block ends while others read its memory.
    mbarrier.cluster_sync()
    return total


@contextlib.contextmanager
def finishing(consumer: Consumer) -> Iterator[None]:
    """What is inside happens in those blocks of a split that finish a part of the columns."""
    sizes = consumer.plan.sizes
    if sizes.finishers == sizes.split:
        yield
        return
    with T.If(consumer.walk.rank < sizes.finishers), T.Then():
        yield
