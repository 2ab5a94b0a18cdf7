"""What codes of few bits are decoded with: bit tricks on words, two 16-bit numbers at a time.

Decoders are written once, over `Words`; there are two of it. `Emitted` writes TIR, whose bit
arithmetic nvcc turns into LOP3 and SHF, and a few instructions that C has no words for. `Computed`
computes the same with numpy: the plain meaning that tests check exhaustively, over all codes.
(PTX manual: ``prmt``, ``fma.rn.f16x2``, ``fma.rn.bf16x2``, ``cvt.rn.bf16x2.f32``.)
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal, Protocol

import ml_dtypes
import numpy as np
import numpy.typing as npt
from tvm import tirx
from tvm.backend.cuda.op import cuda_func_call

from ..parameters import held

#: What is decoded to.
Number = Literal["float16", "bfloat16"]

_NUMPY: dict[str, np.dtype] = {
    "float16": np.dtype(np.float16),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
}


class Words(Protocol):
    """Instructions on 32-bit words; values are whatever an implementation's words are."""

    def shift(self, word: Any, right: int) -> Any:
        """`word` shifted to the right, or to the left where `right` is negative."""
        ...

    def take(self, word: Any, mask: int, over: Any) -> Any:
        """``(word & mask) | over``: one LOP3. `over` is a word or an integer."""
        ...

    def permute(self, low: Any, high: Any, selector: Any) -> Any:
        """Bytes of `low` (0..3) and `high` (4..7) that the selector's low four nibbles name.

        Nibbles are at most 7. All three are words or integers.
        """
        ...

    def fma(self, dtype: Number, a: Any, b: Any, c: Any) -> Any:
        """``a · b + c`` of two pairs each, rounded once. `b` and `c` are words or integers."""
        ...

    def widen(self, codes: Any, zero: Any) -> Any:
        """bfloat16 of both halves' codes (below 256) minus `zero`, exactly.

        `zero` is a float32 value or a Python float.
        """
        ...

    def look_up(self, codes: Any) -> Any:
        """The table's numbers for both halves' codes."""
        ...


def pair(dtype: Number, value: float) -> int:
    """The word of two equal numbers."""
    with np.errstate(over="ignore"):
        bits = int(np.array(value, _NUMPY[dtype]).view(np.uint16))
    return bits << 16 | bits


class Emitted:
    """Instructions as TIR, through the builder.

    Attributes:
        table: address of 16-bit numbers in shared memory, for `look_up`; None where none is used.
        constants: registers that hold constants which instructions take from registers only. Left
            to itself, nvcc would move them there before every use: so they seem to depend on the
            lane.
    """

    def __init__(self, table: Any = None, constants: Iterable[int] = ()) -> None:
        self.table = table
        code = """
__device__ __forceinline__ unsigned fewbits_constant(unsigned value) {
  unsigned d;
  asm volatile("{ .reg .u32 lane; mov.u32 lane, %%laneid; shr.u32 lane, lane, 5;"
               " add.u32 %0, lane, %1; }" : "=r"(d) : "r"(value));
  return d;
}
"""
        self.constants = {
            value: _call("fewbits_constant", code, _word(value)) for value in constants
        }

    def shift(self, word: Any, right: int) -> Any:
        """See `Words`."""
        amount = tirx.const(abs(right), "uint32")
        return held(word >> amount if right > 0 else word << amount)

    def take(self, word: Any, mask: int, over: Any) -> Any:
        """See `Words`."""
        if isinstance(over, int) and over == 0:
            return held(word & tirx.const(mask, "uint32"))
        # With two constants nvcc would make two instructions of it.
        code = """
__device__ __forceinline__ unsigned fewbits_take(unsigned word, unsigned mask, unsigned over) {
  unsigned d;
  asm("lop3.b32 %0, %1, %2, %3, 0xea;" : "=r"(d) : "r"(word), "r"(mask), "r"(over));
  return d;
}
"""
        return _call("fewbits_take", code, word, _word(mask), _word(over))

    def permute(self, low: Any, high: Any, selector: Any) -> Any:
        """See `Words`."""
        code = """
__device__ __forceinline__ unsigned fewbits_permute(unsigned low, unsigned high, unsigned s) {
  unsigned d;
  asm("prmt.b32 %0, %1, %2, %3;" : "=r"(d) : "r"(low), "r"(high), "r"(s));
  return d;
}
"""
        words = [
            self.constants.get(w, w) if isinstance(w, int) else w for w in (low, high, selector)
        ]
        return _call("fewbits_permute", code, *map(_word, words))

    def fma(self, dtype: Number, a: Any, b: Any, c: Any) -> Any:
        """See `Words`."""
        short = {"float16": "f16x2", "bfloat16": "bf16x2"}[dtype]
        name = f"fewbits_fma_{short}"
        code = f"""
__device__ __forceinline__ unsigned {name}(unsigned a, unsigned b, unsigned c) {{
  unsigned d;
  asm("fma.rn.{short} %0, %1, %2, %3;" : "=r"(d) : "r"(a), "r"(b), "r"(c));
  return d;
}}
"""
        return _call(name, code, _word(a), _word(b), _word(c))

    def widen(self, codes: Any, zero: Any) -> Any:
        """See `Words`: codes become the low bits of float32 numbers from 2^23 on."""
        code = """
__device__ __forceinline__ unsigned fewbits_widen(unsigned codes, float zero) {
  float shift = 8388608.0f + zero;
  float low = __uint_as_float(0x4b000000u | (codes & 0xffffu)) - shift;
  float high = __uint_as_float(0x4b000000u | (codes >> 16)) - shift;
  unsigned d;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(d) : "f"(high), "f"(low));
  return d;
}
"""
        value = tirx.const(zero, "float32") if isinstance(zero, float) else zero
        return _call("fewbits_widen", code, codes, value)

    def look_up(self, codes: Any) -> Any:
        """See `Words`."""
        code = """
__device__ __forceinline__ unsigned fewbits_look_up(const void* table, unsigned codes) {
  const unsigned short* numbers = (const unsigned short*)table;
  unsigned low = numbers[codes & 0xffffu], high = numbers[codes >> 16];
  return low | high << 16;
}
"""
        return _call("fewbits_look_up", code, self.table, codes)


class Computed:
    """Instructions as numpy computes them; words are uint32 arrays.

    Attributes:
        table: uint16, the numbers' bits; None where `look_up` is not used.
    """

    def __init__(self, table: npt.NDArray[np.uint16] | None = None) -> None:
        self.table = table

    def shift(self, word: Any, right: int) -> Any:
        """See `Words`."""
        amount = np.uint32(abs(right))
        return word >> amount if right > 0 else word << amount

    def take(self, word: Any, mask: int, over: Any) -> Any:
        """See `Words`."""
        return (word & np.uint32(mask)) | np.uint32(over)

    def permute(self, low: Any, high: Any, selector: Any) -> Any:
        """See `Words`."""
        both = np.uint64(low) | np.uint64(high) << np.uint64(32)
        result = np.uint32(0)
        for place in range(4):
            nibble = (np.uint32(selector) >> np.uint32(4 * place)) & np.uint32(15)
            if np.any(nibble > 7):
                raise ValueError("a selector's nibble exceeds 7")
            byte = (both >> (np.uint64(8) * nibble.astype(np.uint64))) & np.uint64(255)
            result = result | byte.astype(np.uint32) << np.uint32(8 * place)
        return result

    def fma(self, dtype: Number, a: Any, b: Any, c: Any) -> Any:
        """See `Words`: float64 holds products of 16-bit numbers exactly."""
        a, b, c = (numbers(np.uint32(v), dtype) for v in (a, b, c))
        with np.errstate(over="ignore"):
            return _packed((a * b + c).astype(_NUMPY[dtype]))

    def widen(self, codes: Any, zero: Any) -> Any:
        """See `Words`."""
        halves = np.stack([codes & np.uint32(0xFFFF), codes >> np.uint32(16)], axis=-1)
        return _packed((halves.astype(np.float64) - zero).astype(_NUMPY["bfloat16"]))

    def look_up(self, codes: Any) -> Any:
        """See `Words`."""
        assert self.table is not None
        low, high = self.table[codes & np.uint32(0xFFFF)], self.table[codes >> np.uint32(16)]
        return low.astype(np.uint32) | high.astype(np.uint32) << np.uint32(16)


def numbers(words: Any, dtype: Number) -> npt.NDArray[np.float64]:
    """The two numbers of each word, float64 [..., 2]."""
    words = np.asarray(words, np.uint32)
    halves = np.stack([words & np.uint32(0xFFFF), words >> np.uint32(16)], axis=-1)
    return halves.astype(np.uint16).view(_NUMPY[dtype]).astype(np.float64)


def _packed(halves: np.ndarray) -> npt.NDArray[np.uint32]:
    bits = halves.view(np.uint16).astype(np.uint32)
    return bits[..., 0] | bits[..., 1] << np.uint32(16)


def _word(value: Any) -> Any:
    return tirx.const(value, "uint32") if isinstance(value, int) else value


def _call(name: str, code: str, *arguments: Any) -> Any:
    return held(cuda_func_call(name, *arguments, source_code=code, return_type="uint32"))
