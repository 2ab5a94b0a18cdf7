"""The kernel around its parts: tensor maps on the host, roles of warpgroups on the GPU."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

from tvm import tirx
from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script import builder

from ..intrinsics import mbarrier, tma, wgmma
from ..intrinsics.ptx import issue
from ..intrinsics.registers import held
from ..parameters import Parameters
from . import sizes as fits
from .epilogue import Finish
from .main_loop import Consumer
from .plan import Memory, Plan
from .producer import produce
from .reduce import added, finishing
from .sizes import CONSUMER_REGISTERS, PRODUCER_REGISTERS
from .tiles import Walk

#: TVM's builder; its annotations are narrower than what it gives.
T: Any = builder

#: Places of tiles, and the copy engine's coordinates, are int32.
_MOST_ROWS = 2**31 - 2**16


@dataclasses.dataclass(frozen=True)
class Parts:
    """What a kernel is made of; other than dense weights bring parts of their own.

    Attributes:
        maps: where the producer finds the left operand and the right one, and the results' tensor
            map or None, from the plan and the parameters. Runs on the host.
        memory: what lies where in shared memory.
        produce: the producer's loop.
        consumer: the consumers' sums.
        finish: what becomes of them.
    """

    maps: Callable[[Plan, Parameters], list[Any]]
    memory: Callable[[Plan, Any], Memory] = Memory
    produce: Callable[[Plan, Memory, Walk, tuple[Any, Any]], None] = produce
    consumer: Callable[..., Consumer] = Consumer
    finish: Callable[..., Any] = Finish


def write(plan: Plan, name: str, parts: Parts | None = None) -> Any:
    """The PrimFunc of a plan; without `parts`, of a dense product."""
    parts = parts or Parts(_maps)
    with IRBuilder() as ir_builder, T.prim_func():
        T.func_name(name)
        T.func_attr({"global_symbol": name})
        parameters = Parameters.declare(plan.problem)
        few_enough = parameters.rows <= _MOST_ROWS
        with T.Assert(few_enough, f"a product of more than {_MOST_ROWS} rows"):
            pass
        maps = parts.maps(plan, parameters)
        T.device_entry()
        # setmaxnreg means something only where the registers at the start are known.
        with T.attr({"tirx.launch_bounds_min_blocks_per_sm": 1}):
            block: Any = T.cta_id([Walk.grid(plan, parameters.rows)])
            if plan.sizes.cluster > 1:
                T.cta_id_in_cluster([plan.sizes.cluster])
            warp: Any = T.warp_id([plan.sizes.threads // 32])
            thread: Any = T.thread_id([plan.sizes.threads])
            memory = parts.memory(plan, _base(plan))
            walk = Walk.start(plan, parameters.rows, block)
            with T.If(thread == 0), T.Then():
                _init_barriers(plan, memory)
            _everyone_sees(plan)
            group = held(warp // 4)
            with T.If(group == 0):
                with T.Then():
                    if plan.sizes.consumers == 2:
                        issue("setmaxnreg.dec.sync.aligned.u32", PRODUCER_REGISTERS)
                    with T.If(thread == 0), T.Then():
                        parts.produce(plan, memory, walk, (maps[0], maps[1]))
                    _producer_leaves(plan)
                with T.Else():
                    if plan.sizes.consumers == 2:
                        issue("setmaxnreg.inc.sync.aligned.u32", CONSUMER_REGISTERS)
                    number = held(group - 1)
                    ring = mbarrier.Ring.start(plan.sizes.stages)
                    within = held(thread % wgmma.THREADS)
                    consumer = parts.consumer(plan, memory, walk, number, within, ring)
                    finish = functools.partial(parts.finish, consumer, parameters, maps[2])
                    _consume(consumer, finish)
    return ir_builder.get()


def _maps(plan: Plan, parameters: Parameters) -> list[Any]:
    """Tensor maps of the left operand, the right one and, where it is needed, the result."""
    problem = plan.problem
    sides = [
        (parameters.x, parameters.rows),
        (parameters.weight[0], problem.outputs),
    ]
    if plan.sizes.swap:
        sides.reverse()
    maps = [
        tma.encode(array.data, plan.kind.item, rows, problem.inputs, box)
        for (array, rows), box in zip(sides, (plan.left_box, plan.right_box), strict=True)
    ]
    if not plan.staged:
        return [*maps, None]
    box = (wgmma.ROWS, plan.piece)
    item = fits.output_bytes(problem)
    result = tma.encode(parameters.y.data, item, parameters.rows, problem.outputs, box)
    return [*maps, result]


def _base(plan: Plan) -> Any:
    """Where a block's shared memory begins, at a multiple of 1024."""
    pool = T.alloc_buffer((plan.shared_bytes,), "uint8", scope="shared.dyn", align=128)
    start = T.cuda.cvta_generic_to_shared(T.address_of(pool[0]))
    aligned = (start + T.uint32(tma.PATTERN - 1)) & T.uint32(0x100000000 - tma.PATTERN)
    return held(aligned)


def _init_barriers(plan: Plan, memory: Memory) -> None:
    for stage in range(plan.sizes.stages):
        mbarrier.init(memory.full(stage), 1)
        mbarrier.init(memory.empty(stage), plan.consumer_warps)
    for consumer in range(2):
        mbarrier.init(memory.turn(consumer), wgmma.THREADS // 32)
    mbarrier.init_visible()


def _everyone_sees(plan: Plan) -> None:
    """No block copies or arrives before the barriers of all are there."""
    if plan.sizes.cluster > 1:
        mbarrier.cluster_sync()
    else:
        T.evaluate(T.cuda.cta_sync())


def _producer_leaves(plan: Plan) -> None:
    """Take part in the cluster's barriers that consumers wait at."""
    if plan.sizes.split > 1:
        mbarrier.cluster_sync()
    if plan.sizes.cluster > 1:
        mbarrier.cluster_sync()


def _consume(consumer: Consumer, finish: Callable[[Any, Any], Any]) -> None:
    plan, walk = consumer.plan, consumer.walk
    if plan.sizes.schedule == "pingpong":
        _ping_pong(consumer, finish)
    else:
        with T.serial(0, walk.count) as number:
            _tile(consumer, finish, number, lambda: None)
    if plan.staged:
        # Shared memory must last until it has been read.
        with T.If(consumer.thread == 0), T.Then():
            tma.stored(0)
    if plan.sizes.split == 1 and plan.sizes.cluster > 1:
        # Others may still copy to this block or arrive at its barriers.
        mbarrier.cluster_sync()


def _tile(
    consumer: Consumer, finish: Callable[[Any, Any], Any], number: Any, issued: Callable[[], None]
) -> None:
    row, column = consumer.walk.place(number)
    sizes = consumer.plan.sizes
    if sizes.split > 1:
        part = tirx.truncmod(consumer.walk.rank, sizes.finishers)
        column = held(column + part * (sizes.groups * 8))
    results = finish(held(row + consumer.first_row), column)

    def all_issued() -> None:
        issued()
        results.begin()

    sums = consumer.tile(all_issued)
    if sizes.split > 1:
        sums = added(consumer, sums)
    with finishing(consumer):
        results.end(sums)


def _ping_pong(consumer: Consumer, finish: Callable[[Any, Any], Any]) -> None:
    """Every other tile, and the ring's stages in between are the other consumer's.

    Turns are what keeps a consumer from taking an earlier round's data for its own: parities tell
    only one round from the next.
    """
    plan, walk, memory = consumer.plan, consumer.walk, consumer.memory
    other = T.Bind(1 - consumer.number)
    with T.If(consumer.number == 1), T.Then():
        consumer.ring.skip(plan.steps)
    tiles = tirx.truncdiv(walk.count - consumer.number + 1, 2)

    def issued() -> None:
        with T.If(consumer.thread % 32 == 0), T.Then():
            mbarrier.arrive(memory.turn(other))

    with T.serial(0, tiles) as number:
        # The first consumer's first turn is there from the start.
        mbarrier.wait(memory.turn(consumer.number), (number & 1) ^ (1 - consumer.number))
        _tile(consumer, finish, number * 2 + consumer.number, issued)
        consumer.ring.skip(plan.steps)
