"""What generations of NVIDIA GPUs have: instructions, memories, and nominal rates."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import tvm


@dataclasses.dataclass(frozen=True)
class Architecture:
    """A generation that code is made for.

    Attributes:
        name: as nvcc writes it; the ``a`` of ``sm_90a`` stands for instructions that no later
            generation keeps.
        capability: what a device must report: exactly this with ``a``, else the same major number
            and at least this minor one.
        shared_memory: bytes that one block may have.
        shared_memory_sm: bytes that the blocks on one multiprocessor share.
        registers: 32-bit ones of a multiprocessor.
        multiprocessors: of the generation's usual card, for rules where no device is at hand.
        has_fp8_mma: ``mma.sync`` with e4m3 and e5m2 is native.
        has_wgmma: warpgroup products, TMA, and barriers that count bytes.
        has_s4_mma: ``mma.sync`` with 4-bit integers is native, not emulated.
    """

    name: str
    capability: tuple[int, int]
    shared_memory: int
    shared_memory_sm: int
    multiprocessors: int
    has_fp8_mma: bool = False
    has_wgmma: bool = False
    has_s4_mma: bool = True
    registers: int = 65536

    @property
    def has_fp8(self) -> bool:
        """Whether products of FP8 numbers run on tensor cores at twice the rate of float16."""
        return self.has_fp8_mma or self.has_wgmma

    def tvm_target(self) -> tvm.target.Target:
        """The architecture as TVM knows it; the host's code is LLVM's."""
        import tvm

        return tvm.target.Target(
            {
                "kind": "cuda",
                "arch": self.name,
                "max_shared_memory_per_block": self.shared_memory,
                "max_threads_per_block": 1024,
                "thread_warp_size": 32,
            },
            host="llvm",
        )

    def runs_on(self, capability: tuple[int, int]) -> bool:
        """Whether a device of this compute capability runs the architecture's machine code."""
        if self.name.endswith("a"):
            return capability == self.capability
        return capability[0] == self.capability[0] and capability >= self.capability


SM_80 = Architecture("sm_80", (8, 0), 166_912, 167_936, 108)
SM_89 = Architecture("sm_89", (8, 9), 101_376, 102_400, 142, has_fp8_mma=True)
SM_90A = Architecture("sm_90a", (9, 0), 232_448, 233_472, 132, has_wgmma=True, has_s4_mma=False)

#: By name, oldest first.
ARCHITECTURES: dict[str, Architecture] = {arch.name: arch for arch in (SM_80, SM_89, SM_90A)}
