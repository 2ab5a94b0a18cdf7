"""Products of bytes with or without signs, and the transposition that gathered rows need."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tvm.backend.cuda.op import cuda_func_call
from tvm.tirx.script import builder

#: TVM's builder; its annotations are narrower than what it gives.
T: Any = builder

_TRANSPOSE = """
__device__ __forceinline__ void fewbits_transpose_bytes(unsigned& d0, unsigned& d1, unsigned& d2,
    unsigned& d3, unsigned a, unsigned b, unsigned c, unsigned d) {
  unsigned ab_low = __byte_perm(a, b, 0x5140), ab_high = __byte_perm(a, b, 0x7362);
  unsigned cd_low = __byte_perm(c, d, 0x5140), cd_high = __byte_perm(c, d, 0x7362);
  d0 = __byte_perm(ab_low, cd_low, 0x5410);
  d1 = __byte_perm(ab_low, cd_low, 0x7632);
  d2 = __byte_perm(ab_high, cd_high, 0x5410);
  d3 = __byte_perm(ab_high, cd_high, 0x7632);
}
"""


def multiply_bytes(
    sums: Sequence[Any],
    left: Sequence[Any],
    right: Sequence[Any],
    *,
    left_signed: bool = True,
    right_signed: bool = True,
) -> None:
    """``sums += left · rightᵀ`` over 16 rows, 8 columns and 32 bytes (``mma.m16n8k32``).

    Args:
        sums: the lane's four results, elements of an int32 buffer.
        left: its four words of the 16 rows.
        right: its two words of the 8 columns.
        left_signed, right_signed: whether bytes are two's complement.
    """
    types = ["s8" if signed else "u8" for signed in (left_signed, right_signed)]
    name = f"fewbits_mma_{types[0]}_{types[1]}"
    source = f"""
__device__ __forceinline__ void {name}(int& d0, int& d1, int& d2, int& d3, unsigned a0,
    unsigned a1, unsigned a2, unsigned a3, unsigned b0, unsigned b1) {{
  asm("mma.sync.aligned.m16n8k32.row.col.s32.{types[0]}.{types[1]}.s32 "
      "{{%0, %1, %2, %3}}, {{%4, %5, %6, %7}}, {{%8, %9}}, {{%0, %1, %2, %3}};"
      : "+r"(d0), "+r"(d1), "+r"(d2), "+r"(d3)
      : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}}
"""
    T.evaluate(cuda_func_call(name, *sums, *left, *right, source_code=source))


def transpose_bytes(columns: Sequence[Any], rows: Sequence[Any]) -> None:
    """Byte i of word j becomes byte j of word i: a matrix of 4 x 4 bytes.

    Args:
        columns: four elements of a uint32 buffer, the results.
        rows: four uint32 values.
    """
    T.evaluate(cuda_func_call("fewbits_transpose_bytes", *columns, *rows, source_code=_TRANSPOSE))
