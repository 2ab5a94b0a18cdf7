"""Tensor-core products of a warp (``mma.sync``), and what feeds them: ``ldmatrix``, ``cp.async``.

All kinds are alike in bytes: a product takes 16 rows and 8 columns of 32 bytes along K, and a
matrix of ``ldmatrix`` is 8 rows of 16 bytes. So kernels count in bytes, and only `Kind` knows what
the bytes are. (PTX manual, "Matrix multiply-accumulate operation using mma instruction".)
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from tvm.backend.cuda.op import cuda_func_call
from tvm.tirx.script import builder as T

#: Rows and columns of a product's result, and bytes along K of its operands.
ROWS, COLUMNS, BYTES = 16, 8, 32

#: Bytes that one asynchronous copy moves; both addresses are multiples of it.
COPY = 16


@dataclasses.dataclass(frozen=True)
class Kind:
    """A product's types.

    Attributes:
        dtype: of both operands.
        accumulator: ``int32`` or ``float32``.
        shape: as PTX writes it.
        types: of result, operands and sum, as PTX writes them.
        machine: what its machine code is called.
    """

    dtype: str
    accumulator: str
    shape: str
    types: str
    machine: str

    @property
    def bytes(self) -> int:
        """Of an element of the operands."""
        return 2 if self.dtype in ("float16", "bfloat16") else 1


#: By the operands' dtype. FP8 has machine code of its own on sm_89 only.
KINDS: dict[str, Kind] = {
    kind.dtype: kind
    for kind in (
        Kind("int8", "int32", "m16n8k32", "s32.s8.s8.s32", "IMMA"),
        Kind("float16", "float32", "m16n8k16", "f32.f16.f16.f32", "HMMA"),
        Kind("bfloat16", "float32", "m16n8k16", "f32.bf16.bf16.f32", "HMMA"),
        Kind("float8_e4m3fn", "float32", "m16n8k32", "f32.e4m3.e4m3.f32", "QMMA"),
        Kind("float8_e5m2", "float32", "m16n8k32", "f32.e5m2.e5m2.f32", "QMMA"),
    )
}


def multiply(kind: Kind, sums: Sequence[Any], left: Sequence[Any], right: Sequence[Any]) -> None:
    """``sums += left · rightᵀ`` over one product.

    Args:
        kind: the types.
        sums: the lane's four results: elements of a buffer of the accumulator's dtype.
        left: its four words of the 16 rows.
        right: its two words of the 8 columns.
    """
    held, letter = ("int", "r") if kind.accumulator == "int32" else ("float", "f")
    name = f"fewbits_mma_{kind.shape}_{kind.dtype}"
    results = ", ".join(f"{held}& d{i}" for i in range(4))
    words = ", ".join(f"unsigned {w}" for w in ("a0", "a1", "a2", "a3", "b0", "b1"))
    outputs = ", ".join(f'"+{letter}"(d{i})' for i in range(4))
    source = f"""
__device__ __forceinline__ void {name}({results}, {words}) {{
  asm("mma.sync.aligned.{kind.shape}.row.col.{kind.types} "
      "{{%0, %1, %2, %3}}, {{%4, %5, %6, %7}}, {{%8, %9}}, {{%0, %1, %2, %3}};"
      : {outputs} : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}}
"""
    T.evaluate(cuda_func_call(name, *sums, *left, *right, source_code=source))


def load_matrices(words: Sequence[Any], address: Any, *, transposed: bool = False) -> None:
    """Read 2 or 4 matrices of 8 rows of 16 bytes from shared memory, a word of each to each lane.

    Args:
        words: elements of a uint32 buffer, one for each matrix. Lane l gets bytes 4·(l % 4) and on
            of row l // 4.
        address: of a row, from lane l: that of row l % 8 of matrix l // 8.
        transposed: matrices of 8 x 8 elements of 16 bits are transposed on the way: lane l gets
            elements l // 4 of rows 2·(l % 4) and 2·(l % 4) + 1.
    """
    count = len(words)
    suffix, trans = ("_trans", ".trans") if transposed else ("", "")
    name = f"fewbits_ldmatrix_x{count}{suffix}"
    results = ", ".join(f"unsigned& d{i}" for i in range(count))
    outputs = ", ".join(f'"=r"(d{i})' for i in range(count))
    places = ", ".join(f"%{i}" for i in range(count))
    source = f"""
__device__ __forceinline__ void {name}({results}, void* row) {{
  unsigned address = (unsigned)__cvta_generic_to_shared(row);
  asm volatile("ldmatrix.sync.aligned.m8n8.x{count}{trans}.shared.b16 {{{places}}}, [%{count}];"
               : {outputs} : "r"(address) : "memory");
}}
"""
    T.evaluate(cuda_func_call(name, *words, address, source_code=source))


def copy(target: Any, source: Any, there: Any | None) -> None:
    """Begin to copy 16 bytes from global to shared memory, past the first cache.

    Args:
        target: address in shared memory.
        source: address in global memory.
        there: whether the bytes exist; zeros are stored where they do not. None: they do.
    """
    head = "unsigned address = (unsigned)__cvta_generic_to_shared(target);"
    if there is None:
        code = f"""
__device__ __forceinline__ void fewbits_copy16(void* target, const void* source) {{
  {head}
  asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16;"
               :: "r"(address), "l"(source) : "memory");
}}
"""
        T.evaluate(cuda_func_call("fewbits_copy16", target, source, source_code=code))
        return
    code = f"""
__device__ __forceinline__ void fewbits_copy16_if(void* target, const void* source, bool there) {{
  {head}
  int bytes = there ? 16 : 0;
  asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16, %2;"
               :: "r"(address), "l"(source), "r"(bytes) : "memory");
}}
"""
    T.evaluate(cuda_func_call("fewbits_copy16_if", target, source, there, source_code=code))


def commit() -> None:
    """The copies begun since the last call are one group."""
    code = """
__device__ __forceinline__ void fewbits_commit() {
  asm volatile("cp.async.commit_group;" ::: "memory");
}
"""
    T.evaluate(cuda_func_call("fewbits_commit", source_code=code))


def wait(pending: int) -> None:
    """Wait until at most this many of the thread's last groups are unfinished."""
    name = f"fewbits_wait_{pending}"
    code = f"""
__device__ __forceinline__ void {name}() {{
  asm volatile("cp.async.wait_group {pending};" ::: "memory");
}}
"""
    T.evaluate(cuda_func_call(name, source_code=code))
