"""Products of a warpgroup whose left operand is in registers (``wgmma``, sm_90a).

Lanes hold the left operand as ``mma.m16n8k16`` has it: warp ``w`` of the four has rows ``16 w`` to
``16 w + 15``. Everything else is as in `wgmma`. (PTX manual, "Register Fragments for
wgmma.mma_async.m64nNk16".)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tvm.backend.cuda.op import cuda_func_call
from tvm.tirx.script import builder

from .wgmma import Kind

#: TVM's builder; its annotations are narrower than what it gives.
T: Any = builder


def product(kind: Kind, columns: int, sums: Sequence[Any], left: Sequence[Any], right: Any) -> None:
    """Issue ``sums += left · rightᵀ`` over 16 values.

    Args:
        kind: ``float16`` or ``bfloat16``.
        columns: one of `kind.columns()`.
        sums: columns / 2 float32 registers, elements of a local buffer.
        left: four words; they must keep their values until the product is done.
        right: descriptor.
    """
    count = columns // 2
    name = f"fewbits_wgmma_registers_n{columns}_{kind.left}"
    results = ", ".join(f"float& d{i}" for i in range(count))
    outputs = ", ".join(f'"+f"(d{i})' for i in range(count))
    places = ", ".join(f"%{i}" for i in range(count))
    words = ", ".join(f"%{count + i}" for i in range(4))
    source = f"""
__device__ __forceinline__ void {name}({results},
    unsigned a0, unsigned a1, unsigned a2, unsigned a3, unsigned long long right) {{
  asm volatile("{kind.instruction(columns)} {{{places}}}, {{{words}}}, %{count + 4}, 1, 1, 1, 0;"
               : {outputs} : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "l"(right) : "memory");
}}
"""
    T.evaluate(cuda_func_call(name, *sums, *left, right, source_code=source))
