"""Barriers in shared memory that count arrivals and bytes (sm_90), and clusters' barriers.

An `mbarrier` goes from phase to phase: a phase ends when all arrivals of its count have come and
all bytes that were announced have been copied. Who waits names the parity of the phase whose end
it waits for; a wait for the phase *before* the current one returns at once, so a fresh barrier lets
whoever waits for parity 1 pass. (PTX manual, "Parallel Synchronization and Communication
Instructions: mbarrier".)

Addresses are uint32: places in the block's shared memory.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from tvm import tirx
from tvm.backend.cuda.op import cuda_func_call
from tvm.tirx.script import builder

from .ptx import issue

#: TVM's builder; its annotations are narrower than what it gives.
T: Any = builder

#: Bytes of one barrier.
BYTES = 8

_WAIT = """
__device__ __forceinline__ void fewbits_mbarrier_wait(unsigned int address, int parity) {
  asm volatile(
      "{ .reg .pred p; "
      "AGAIN: mbarrier.try_wait.parity.shared::cta.b64 p, [%0], %1; "
      "@p bra DONE; "
      "bra AGAIN; "
      "DONE: }"
      : : "r"(address), "r"(parity) : "memory");
}
"""


def init(address: Any, count: int) -> None:
    """A fresh barrier whose phases take this many arrivals. One thread does it."""
    issue("mbarrier.init.shared.b64", address, T.uint32(count))


def init_visible() -> None:
    """What this thread initialized is seen by the copy engine and by the cluster's blocks."""
    issue("fence.mbarrier_init.release.cluster")


def wait(address: Any, parity: Any) -> None:
    """Return once the phase of this parity (0 or 1) has ended.

    TVM's own loop calls its branches uniform, which lanes of a warp need not be.
    """
    T.evaluate(cuda_func_call("fewbits_mbarrier_wait", address, parity, source_code=_WAIT))


def arrive(address: Any) -> None:
    """One arrival at a barrier of this block."""
    issue("mbarrier.arrive.shared.b64", address)


def arrive_at(address: Any, rank: Any) -> None:
    """One arrival at the barrier at the same place of another block of the cluster."""
    issue("mbarrier.arrive.shared::cluster.b64", remote(address, rank))


def expect(address: Any, count: int) -> None:
    """One arrival that announces as many bytes of copies."""
    issue("mbarrier.arrive.expect_tx.shared.b64", address, T.uint32(count))


def remote(address: Any, rank: Any) -> Any:
    """The address, in the cluster's window, of the same place in another block's memory."""
    place = T.alloc_buffer((1,), "uint32", scope="local")
    issue("mapa.shared::cluster.u32", place[0], address, tirx.Cast("uint32", rank))
    return place[0]


def cluster_sync() -> None:
    """Wait for all threads of the cluster; what they stored is seen from then on."""
    issue("barrier.cluster.arrive.release")
    issue("barrier.cluster.wait.acquire")


def named_sync(name: int | Any, threads: int) -> None:
    """Wait for `threads` threads of the block at the barrier number `name`, 1 to 15."""
    number = T.uint32(name) if isinstance(name, int) else name
    issue("bar.sync", number, T.uint32(threads))


@dataclasses.dataclass(frozen=True, eq=False)
class Ring:
    """A place in a ring of stages, with the parity of the round it is in, in registers.

    Attributes:
        stages: of the ring.
        stage: one int32 element.
        parity: one int32 element: 0 in even rounds.
    """

    stages: int
    stage: Any
    parity: Any

    @staticmethod
    def start(stages: int) -> Ring:
        """The first stage in the first round."""
        ring = Ring(
            stages,
            T.alloc_buffer((1,), "int32", scope="local"),
            T.alloc_buffer((1,), "int32", scope="local"),
        )
        T.buffer_store(ring.stage, T.int32(0), [0])
        T.buffer_store(ring.parity, T.int32(0), [0])
        return ring

    def advance(self) -> None:
        """On to the next stage."""
        T.buffer_store(self.stage, self.stage[0] + 1, [0])
        with T.If(self.stage[0] == self.stages), T.Then():
            T.buffer_store(self.stage, T.int32(0), [0])
            T.buffer_store(self.parity, self.parity[0] ^ 1, [0])

    def skip(self, steps: int) -> None:
        """On by so many stages."""
        rounds, rest = divmod(steps, self.stages)
        if rounds % 2:
            T.buffer_store(self.parity, self.parity[0] ^ 1, [0])
        if rest:
            T.buffer_store(self.stage, self.stage[0] + rest, [0])
            with T.If(self.stage[0] >= self.stages), T.Then():
                T.buffer_store(self.stage, self.stage[0] - self.stages, [0])
                T.buffer_store(self.parity, self.parity[0] ^ 1, [0])
