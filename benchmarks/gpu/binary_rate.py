"""A kernel that does nothing but binary products: their rate, a ceiling of other kernels."""

from __future__ import annotations

import dataclasses
from typing import Any

_SOURCE = """
__device__ __forceinline__ int fewbits_b1_rate(int rounds, int seed) {
  int c[8][4] = {};
  unsigned a[4], b[2];
  for (int i = 0; i < 4; ++i) a[i] = 0x9e3779b9u * (seed + i + 1);
  for (int i = 0; i < 2; ++i) b[i] = 0x85ebca6bu * (seed + i + 1);
  for (int round = 0; round < rounds; ++round) {
#pragma unroll
    for (int chain = 0; chain < 8; ++chain)
      asm volatile(
          "mma.sync.aligned.m16n8k256.row.col.s32.b1.b1.s32.and.popc "
          "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
          : "+r"(c[chain][0]), "+r"(c[chain][1]), "+r"(c[chain][2]), "+r"(c[chain][3])
          : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
  }
  int sum = 0;
  for (int chain = 0; chain < 8; ++chain)
    for (int i = 0; i < 4; ++i) sum += c[chain][i];
  return sum;
}
"""
_CHAINS, _WARPS, _ROUNDS = 8, 8, 4096


@dataclasses.dataclass(frozen=True)
class Size:
    """What one launch does.

    Attributes:
        results: elements of its one array, int32.
        operations: multiplications and additions of bits, both counted.
    """

    results: int
    operations: float


def binary_rate(architecture: str) -> tuple[Any, Size]:
    """The kernel: out [threads] int32, and what a launch of it computes."""
    from fewbits.schedules.cuda.architecture import ARCHITECTURES
    from fewbits.schedules.cuda.parameters import launch
    from fewbits.schedules.cuda.template import Kernel
    from tvm import tirx
    from tvm.backend.cuda.op import cuda_func_call
    from tvm.script.ir_builder import IRBuilder
    from tvm.tirx.script import builder as T

    arch = ARCHITECTURES[architecture]
    blocks, threads = 4 * arch.multiprocessors, 32 * _WARPS
    name = "fewbits_b1"
    with IRBuilder() as ir_builder:
        with T.prim_func():
            T.func_name(name)
            T.func_attr({"global_symbol": name})
            out = T.arg("out", T.buffer((blocks * threads,), "int32"))
            block, thread = launch(tirx.const(blocks, "int64"), threads)
            place = tirx.Cast("int32", block) * threads + thread
            value = cuda_func_call(
                "fewbits_b1_rate", tirx.const(_ROUNDS, "int32"), place, source_code=_SOURCE,
                return_type="int32",
            )  # fmt: skip
            T.buffer_store(out, value, [place])
        function = ir_builder.get()
    operations = 2.0 * 16 * 8 * 256 * _CHAINS * _ROUNDS * blocks * _WARPS
    return Kernel(name, function, arch, "tirx"), Size(blocks * threads, operations)
