"""What a schedule needs to know of a processor, read from TVM's target."""

from __future__ import annotations

import dataclasses

import tvm_ffi
from tvm import target as tvm_target

#: Vector registers where the architecture does not say: 16 are in every x86-64.
_FEW_REGISTERS = 16
_MANY_REGISTERS = 32


@dataclasses.dataclass(frozen=True)
class Machine:
    """A processor's vector unit.

    Attributes:
        lanes: float32 elements in a vector register.
        registers: architectural vector registers.
    """

    lanes: int
    registers: int

    @classmethod
    def of(cls, target: tvm_target.Target) -> Machine:
        """The machine of an ``llvm`` target (its ``mcpu`` and ``mattr`` decide)."""
        if str(target.attrs.get("mtriple", "")).startswith(("aarch64", "arm64")):
            return cls(lanes=4, registers=_MANY_REGISTERS)
        if _has(target, "avx512f"):
            return cls(lanes=16, registers=_MANY_REGISTERS)
        return cls(lanes=8 if _has(target, "avx") else 4, registers=_FEW_REGISTERS)


def _has(target: tvm_target.Target, feature: str) -> bool:
    return bool(tvm_ffi.get_global_func("target.llvm_cpu_has_feature")(feature, target))
