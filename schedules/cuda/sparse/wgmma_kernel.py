"""The kernel of ``wgmma.sp``: the skeleton of `hopper`, with parts for a sparse left operand.

The producer copies a step's pieces of the weight as lines of bytes and its rows of x as boxes;
consumers read metadata into registers, and find kept elements by descriptor.
"""

from __future__ import annotations

from typing import Any

from tvm import tirx
from tvm.backend.cuda.op import cuda_func_call
from tvm.tirx.script import builder

from ..hopper import kernel as skeleton
from ..hopper.main_loop import Consumer
from ..hopper.plan import Memory, Plan
from ..hopper.tiles import Walk
from ..intrinsics import mbarrier, tma, wgmma
from ..intrinsics.ptx import issue
from ..intrinsics.registers import held
from ..parameters import Parameters, long
from .instructions import BYTES, left_descriptor, product
from .layout import OUTPUTS, PRODUCTS, VALUES
from .store import Store
from .wgmma_plan import SparseMemory, SparsePlan

#: TVM's builder; its annotations are narrower than what it gives.
T: Any = builder

_LOAD = """
__device__ __forceinline__ void fewbits_bulk_load(unsigned target, const void* source,
                                                  int bytes, unsigned barrier) {
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];"
      : : "r"(target), "l"(source), "r"(bytes), "r"(barrier) : "memory");
}
"""


def write(plan: SparsePlan, name: str) -> Any:
    """The PrimFunc of a plan."""
    parts = skeleton.Parts(
        maps=_maps,
        memory=SparseMemory,
        produce=_produce,
        consumer=SparseConsumer,
        finish=Finish,
    )
    return skeleton.write(plan, name, parts)


def _maps(plan: Plan, parameters: Parameters) -> list[Any]:
    """The weight itself, and x's tensor map; results leave from registers."""
    x = tma.encode(
        parameters.x.data,
        plan.kind.item,
        parameters.rows,
        plan.problem.inputs,
        plan.right_box,
    )
    return [parameters.weight[0], x, None]


def _produce(plan: Plan, memory: Memory, walk: Walk, sources: tuple[Any, Any]) -> None:
    """Copy all stages of all of the block's tiles."""
    assert isinstance(plan, SparsePlan)
    sizes, layout = plan.sizes, plan.layout
    weight, x_map = sources
    pieces, _ = layout.pieces(plan.problem.outputs, plan.problem.inputs)
    ring = mbarrier.Ring.start(sizes.stages)
    with T.serial(0, walk.count) as number:
        row, column = walk.place(number)
        first = held(row // OUTPUTS)
        # A block of a cluster copies its share of what the cluster has in common, to all.
        column = held(column + walk.row_rank * plan.right_box[0])
        with T.serial(0, walk.steps) as count:
            stage = ring.stage[0]
            mbarrier.wait(memory.empty(stage), ring.parity[0] ^ 1)
            mbarrier.expect(memory.full(stage), plan.transferred)
            step = held(walk.first_step + count)
            for block in range(sizes.rows // OUTPUTS):
                # Outputs beyond the last piece get its bytes: nothing is stored for them.
                piece = tirx.Min(first + block, tirx.const(pieces - 1, "int32"))
                source = T.address_of(weight[long(piece), long(step), tirx.const(0, "int64")])
                target = memory.left(stage) + T.uint32(block * layout.piece_bytes)
                arguments = (target, source, layout.piece_bytes, memory.full(stage))
                T.evaluate(cuda_func_call("fewbits_bulk_load", *arguments, source_code=_LOAD))
            share = walk.row_rank * (plan.right_box[0] * tma.ROW)
            place = (column, step * plan.step)
            target = memory.right(stage) + tirx.Cast("uint32", share)
            if sizes.cluster_rows > 1:
                mask = tirx.const(3, "int32")
                tma.load_shared(target, x_map, place, memory.full(stage), mask)
            else:
                tma.load(target, x_map, place, memory.full(stage))
            ring.advance()


class SparseConsumer(Consumer):
    """A warpgroup that multiplies sparse rows."""

    plan: SparsePlan

    def _stage(self, sums: Any, accumulate: int) -> None:
        """Wait for the ring's stage and issue its products, as one group."""
        plan, stage = self.plan, self.ring.stage[0]
        layout, blocks = plan.layout, plan.sizes.blocks
        mbarrier.wait(self.memory.full(stage), self.ring.parity[0])
        mine = self.first_row // OUTPUTS * layout.piece_bytes
        pieces = held(self.memory.left(stage) + tirx.Cast("uint32", mine))
        right = T.Bind(wgmma.descriptor(self.memory.right(stage)))
        lane = tirx.Cast("uint32", self.thread * (4 * layout.words))
        codes = T.alloc_buffer((blocks * layout.words,), "uint32", scope="local")
        for block in range(blocks):
            words = [codes[block * layout.words + word] for word in range(layout.words)]
            vector = ".v2" if layout.words == 2 else ""
            place = pieces + lane + T.uint32(block * layout.piece_bytes + VALUES)
            issue(f"ld.shared{vector}.b32", *words, held(place))
        wgmma.fence()
        each = plan.sizes.columns // 2
        elements = [sums[place] for place in range(int(sums.shape[0]))]
        for number in range(PRODUCTS):
            word, selector = (number, 0) if layout.words == PRODUCTS else (0, number)
            for block in range(blocks):
                left = left_descriptor(pieces + T.uint32(block * layout.piece_bytes))
                product(
                    plan.kind,
                    plan.sizes.columns,
                    elements[block * each : (block + 1) * each],
                    left + T.uint64(number * (4 * 128 // PRODUCTS >> 4)),
                    right + T.uint64(number * (BYTES >> 4)),
                    codes[block * layout.words + word],
                    selector,
                    accumulate or int(number > 0),
                )
        wgmma.commit()


class Finish:
    """The epilogue of one tile in one consumer.

    Args:
        consumer: whose tile it is.
        parameters: the kernel's.
        row: the first output of the tile that is this consumer's, int32.
        column: the first row of x that this block finishes, int32.
    """

    def __init__(
        self, consumer: Consumer, parameters: Parameters, _: Any, row: Any, column: Any
    ) -> None:
        self._consumer, self._parameters = consumer, parameters
        self._row, self._column = row, column

    def begin(self) -> None:
        """Nothing is asked for ahead: the other consumer's products hide these loads."""

    def end(self, sums: Any) -> None:
        """Store all results."""
        plan = self._consumer.plan
        sizes, thread = plan.sizes, self._consumer.thread
        first = long(self._row + thread // 32 * 16)

        def total(tile: int, group: int, element: int) -> Any:
            value = sums[(tile * sizes.groups + group) * 4 + element]
            if plan.problem.accumulator == "int32":
                return tirx.reinterpret("int32", value)
            return value

        Store(
            self._parameters,
            total,
            held(thread % 32),
            [first + block * wgmma.ROWS for block in range(sizes.blocks)],
            [long(self._column + group * 8) for group in range(sizes.groups)],
            plan.problem.outputs % (sizes.rows * sizes.cluster_rows) == 0,
        ).emit()
