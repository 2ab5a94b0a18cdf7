"""Reductions across the threads of a warp or a block.

All threads get the result, and all combine in the same order whatever finishes first: there are no
atomic operations on floats, so equal inputs give equal bits.
"""

from __future__ import annotations

from typing import Any

from tvm import tirx
from tvm.ir import prim
from tvm.tirx.script import builder as T

from .launch import barrier, index, registers, shared_memory, unrolled, when
from .numbers import dtype_of

WARP = 32


def neutral(combine: Any, initial: Any, dtype: str) -> Any:
    """What changes nothing when combined, given what the reduction starts with."""
    if combine is prim.Add:
        return tirx.const(0, dtype)
    if combine is prim.Mul:
        return tirx.const(1, dtype)
    return initial


def of_warps(held: Any, warps: int, lane: Any) -> Any:
    """Shared memory with a register of each warp's first thread, to be read after a barrier.

    Three last elements are read in one word with a fourth, so that is there as well, and written:
    memory that nobody uses would be left out.
    """
    padded = warps + (warps % 4 == 3)
    scratch = shared_memory((padded,), dtype_of(held))
    with when(lane % WARP == 0):
        T.buffer_store(scratch, held[index(0)], [lane // WARP])
    if padded > warps:
        with when(lane == 0):
            T.buffer_store(scratch, held[index(0)], [index(warps)])
    return scratch


def across_lanes(held: Any, combine: Any, lanes: int, lane: Any) -> None:
    """Combine one register of each of `lanes` neighbouring threads; all of them get the result.

    Args:
        held: a register.
        combine: the operation, a class of nodes.
        lanes: a power of two up to 32, or several whole warps that are the block.
        lane: this thread's number among them.
    """
    dtype = dtype_of(held)
    other = registers(1, dtype)
    distance = min(lanes, WARP) // 2
    everyone = tirx.const(0xFFFFFFFF, "uint32")
    while distance:
        shuffled = T.tvm_warp_shuffle_xor(everyone, held[index(0)], distance, WARP, WARP)
        T.buffer_store(other, shuffled, [index(0)])
        T.buffer_store(held, combine(held[index(0)], other[index(0)]), [index(0)])
        distance //= 2
    if lanes <= WARP:
        return
    warps = lanes // WARP
    scratch = of_warps(held, warps, lane)
    barrier()
    T.buffer_store(held, scratch[index(0)], [index(0)])

    def add(warp: Any) -> None:
        T.buffer_store(held, combine(held[index(0)], scratch[warp + 1]), [index(0)])

    unrolled(warps - 1, add)
