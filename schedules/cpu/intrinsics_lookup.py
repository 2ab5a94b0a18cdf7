"""A table in registers: 16 (or 8, or 32) floats looked up by a vector of codes in one instruction.

A few-bit code means whatever a table of ``2**bits`` reals says, so one instruction decodes every
format of up to 4 or 5 bits. Larger tables halve: both halves are looked up, the high bit selects.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

import numpy as np
from tvm import target as tvm_target
from tvm import tirx

from .intrinsics import broadcast, has_feature, is_arm64, pure_call, vector
from .intrinsics_emit import lanes_of

Kind = Literal["permute16", "permute8", "bytes", "memory"]
#: Tables beyond this are read from memory: more lookups would cost more than the loads.
_LARGEST = {"permute16": 256, "permute8": 32, "bytes": 16, "memory": 0}


@dataclasses.dataclass(frozen=True)
class Lookup:
    """How a processor looks values up.

    Attributes:
        kind: ``permute16``: AVX-512's ``vpermps`` (16 entries) and ``vpermi2ps`` (32).
            ``permute8``: AVX2's ``vpermps``. ``bytes``: Arm's ``tbl`` on the bytes of 16 floats.
            ``memory``: element by element.
        lanes: of a vector.
    """

    kind: Kind
    lanes: int

    @classmethod
    def of(cls, target: tvm_target.Target, lanes: int) -> Lookup:
        """The best instruction of a target."""
        if is_arm64(target):
            return cls("bytes", lanes)
        if has_feature(target, "avx512f"):
            return cls("permute16", lanes)
        return cls("permute8" if has_feature(target, "avx2") else "memory", lanes)

    def entries(self, bits: int) -> int:
        """Entries of the stored table: short ones are repeated so that high bits do not matter."""
        least = {"permute16": 16, "permute8": 8, "bytes": 16, "memory": 1}[self.kind]
        return max(1 << bits, least)

    def table(self, values: np.ndarray) -> np.ndarray:
        """The table to store for the ``2**bits`` reals of a format, float32."""
        entries = self.entries(int(values.size).bit_length() - 1)
        return np.tile(values.astype(np.float32), entries // values.size)

    def in_registers(self, bits: int) -> bool:
        """Whether tables of that many bits are looked up without touching memory."""
        return self.entries(bits) <= _LARGEST[self.kind]

    def find(self, table: Any, bits: int, codes: Any, start: Any = 0) -> Any:
        """float32 values of int32 `codes`, of which only the lowest `bits` count.

        The table begins at `start`, which is 0 where it is not looked up in registers.
        """
        if not self.in_registers(bits):
            mask = broadcast(tirx.const((1 << bits) - 1, "int32"), self.lanes)
            return table[tirx.bitwise_and(codes, mask)]
        return self._half(table, start, self.entries(bits), codes)

    def _half(self, table: Any, start: Any, entries: int, codes: Any) -> Any:
        reals = vector("float32", self.lanes)
        if self.kind == "permute16" and entries <= 32:
            low = lanes_of(table, 16, start)
            if entries == 16:
                return pure_call(reals, "llvm.x86.avx512.permvar.sf.512", low, codes)
            high = lanes_of(table, 16, start + 16)
            return pure_call(reals, "llvm.x86.avx512.vpermi2var.ps.512", low, codes, high)
        if self.kind == "permute8" and entries == 8:
            return pure_call(reals, "llvm.x86.avx2.permps", lanes_of(table, 8, start), codes)
        if self.kind == "bytes":
            return self._bytes(table, start, codes)
        half = entries // 2
        bit = tirx.bitwise_and(codes, broadcast(tirx.const(half, "int32"), self.lanes))
        high, low = (self._half(table, start + offset, half, codes) for offset in (half, 0))
        return tirx.Select(bit != broadcast(tirx.const(0, "int32"), self.lanes), high, low)

    def _bytes(self, table: Any, start: Any, codes: Any) -> Any:
        """Byte 4c + i of the table is byte i of entry c."""
        four = broadcast(tirx.const(0x04040404, "int32"), 4)
        first = broadcast(tirx.const(0x03020100, "int32"), 4)
        code = tirx.bitwise_and(codes, broadcast(tirx.const(15, "int32"), 4))
        places = tirx.reinterpret("int8x16", code * four + first)
        reals = [lanes_of(table, 4, start + 4 * i) for i in range(4)]
        quarters = [tirx.reinterpret("int8x16", real) for real in reals]
        found = pure_call("int8x16", "llvm.aarch64.neon.tbl4", *quarters, places)
        return tirx.reinterpret("float32x4", found)
