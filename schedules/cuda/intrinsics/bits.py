"""Binary products of a warp (``mma.sync`` with ``.b1``), and words made of lanes' bits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tvm import tirx
from tvm.backend.cuda.op import cuda_func_call
from tvm.tirx.script import builder

from .registers import held

#: TVM's builder; its annotations are narrower than what it gives.
T: Any = builder

_MULTIPLY = """
__device__ __forceinline__ void fewbits_mma_b1(int& d0, int& d1, int& d2, int& d3, unsigned a0,
    unsigned a1, unsigned a2, unsigned a3, unsigned b0, unsigned b1) {
  asm("mma.sync.aligned.m16n8k256.row.col.s32.b1.b1.s32.and.popc "
      "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+r"(d0), "+r"(d1), "+r"(d2), "+r"(d3)
      : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}
"""
_BALLOT = """
__device__ __forceinline__ unsigned fewbits_ballot(unsigned bit) {
  return __ballot_sync(0xffffffffu, bit);
}
"""


def multiply_bits(sums: Sequence[Any], left: Sequence[Any], right: Sequence[Any]) -> None:
    """``sums[m, n] += popc(left[m] AND right[n])`` over 16 rows, 8 columns and 256 bits.

    Args:
        sums: the lane's four results, elements of an int32 buffer.
        left: its four words of the rows, in the order of ``ldmatrix``.
        right: its two words of the columns.
    """
    T.evaluate(cuda_func_call("fewbits_mma_b1", *sums, *left, *right, source_code=_MULTIPLY))


def ballot(bit: Any) -> Any:
    """The word whose bit l is lane l's `bit` (uint32, 0 or not). All 32 lanes take part."""
    return cuda_func_call("fewbits_ballot", bit, source_code=_BALLOT, return_type="uint32")


def quad_or(word: Any) -> Any:
    """A uint32 word, united over four neighbouring lanes, which all get the result."""
    for distance in (1, 2):
        word = held(word)
        other = tirx.call_pure_extern(
            "uint32", "__shfl_xor_sync", tirx.const(0xFFFFFFFF, "uint32"), word, distance
        )
        word = held(word | other)
    return word
