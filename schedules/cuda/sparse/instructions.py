"""Sparse products: ``mma.sp`` of a warp and ``wgmma.sp`` of a warpgroup.

Both take half of 16 (64) rows by 64 bytes along K for the left operand, with its metadata, and 64
bytes along K of the right one's columns: twice the bytes of a dense product. Metadata say which
elements are kept, in ascending order as ``::ordered_metadata`` demands. (PTX manual, "Matrix
multiply-accumulate operation using mma.sp instruction with sparse matrix A", "Asynchronous
warpgroup-level multiply-and-accumulate operation using wgmma.mma_async.sp instruction".)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tvm import tirx
from tvm.backend.cuda.op import cuda_func_call
from tvm.tirx.script import builder

from ..intrinsics import mma, wgmma

#: TVM's builder; its annotations are narrower than what it gives.
T: Any = builder

#: Bytes along K of the right operand in a product.
BYTES = 2 * wgmma.BYTES


def multiply(
    kind: mma.Kind,
    sums: Sequence[Any],
    left: Sequence[Any],
    right: Sequence[Any],
    metadata: Any,
    selector: int,
    *,
    ordered: bool = True,
) -> None:
    """``sums += left · rightᵀ`` over one product of a warp.

    Args:
        kind: the types.
        sums: the lane's four results: elements of a buffer of the accumulator's dtype.
        left: its four words of the 16 rows' kept elements.
        right: its four words of the 8 columns.
        metadata: its word.
        selector: which lanes have the metadata: 0, or 1 with elements of 16 bits.
        ordered: whether to say that indices ascend, which newer generations want to know.
    """
    held, letter = ("int", "r") if kind.accumulator == "int32" else ("float", "f")
    shape = f"m16n8k{BYTES // kind.bytes}"
    variant, suffix = ("::ordered_metadata", "") if ordered else ("", "_plain")
    name = f"fewbits_mma_sp_{shape}_{kind.dtype}_{selector}{suffix}"
    results = ", ".join(f"{held}& d{i}" for i in range(4))
    words = [f"a{i}" for i in range(4)] + [f"b{i}" for i in range(4)] + ["e"]
    outputs = ", ".join(f'"+{letter}"(d{i})' for i in range(4))
    inputs = ", ".join(f'"r"({word})' for word in words)
    source = f"""
__device__ __forceinline__ void {name}({results}, {", ".join(f"unsigned {w}" for w in words)}) {{
  asm("mma.sp{variant}.sync.aligned.{shape}.row.col.{kind.types} "
      "{{%0, %1, %2, %3}}, {{%4, %5, %6, %7}}, {{%8, %9, %10, %11}}, {{%0, %1, %2, %3}}, "
      "%12, {selector};"
      : {outputs} : {inputs});
}}
"""
    T.evaluate(cuda_func_call(name, *sums, *left, *right, metadata, source_code=source))


#: A descriptor's constant bits for the layout of kept elements: no swizzle, core matrices of 128
#: bytes one after the other along K (bit 16, in units of 16 bytes), eight rows 512 bytes further
#: (bit 32).
_LEFT = (128 >> 4) << 16 | (512 >> 4) << 32


def left_descriptor(address: Any) -> Any:
    """What a product of a warpgroup calls its kept elements; 32 bytes along K are 16 more."""
    unit = (address & T.uint32(0x3FFFF)) >> T.uint32(4)
    return tirx.Cast("uint64", unit) | tirx.const(_LEFT, "uint64")


def product(
    kind: wgmma.Kind,
    columns: int,
    sums: Sequence[Any],
    left: Any,
    right: Any,
    metadata: Any,
    selector: int,
    accumulate: int,
) -> None:
    """Issue ``sums = left · rightᵀ + (sums if accumulate else 0)`` for a warpgroup.

    Args:
        kind: the types.
        columns: one of `kind.columns()`.
        sums: columns / 2 registers, elements of a local buffer.
        left: `left_descriptor`.
        right: `wgmma.descriptor`.
        metadata: the lane's word; it must keep its value until the product is done.
        selector: which lanes have the metadata: 0, or 1 with elements of 16 bits.
        accumulate: 0 or 1.
    """
    count = columns // 2
    c_type, letter = {"float32": ("float", "f"), "uint32": ("unsigned", "r")}[kind.register]
    name = f"fewbits_wgmma_sp_n{columns}_{kind.left}_{kind.right}_{selector}_{accumulate}"
    results = ", ".join(f"{c_type}& d{i}" for i in range(count))
    outputs = ", ".join(f'"+{letter}"(d{i})' for i in range(count))
    places = ", ".join(f"%{i}" for i in range(count))
    dense = kind.instruction(columns)
    k = wgmma.BYTES // kind.item
    text = dense.replace("mma_async.", "mma_async.sp.").replace(f"k{k}.", f"k{2 * k}.")
    scales = {"IGMMA": "", "QGMMA": ", 1, 1", "HGMMA": ", 1, 1, 0, 0"}[kind.machine]
    source = f"""
__device__ __forceinline__ void {name}({results}, unsigned long long left,
    unsigned long long right, unsigned metadata) {{
  asm volatile("{{ .reg .pred p; setp.ne.b32 p, {accumulate}, 0; "
      "{text} {{{places}}}, %{count}, %{count + 1}, %{count + 2}, {selector}, p{scales}; }}"
      : {outputs} : "l"(left), "l"(right), "r"(metadata) : "memory");
}}
"""
    T.evaluate(cuda_func_call(name, *sums, left, right, metadata, source_code=source))
