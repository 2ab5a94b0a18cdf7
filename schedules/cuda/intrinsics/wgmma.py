"""Products of a warpgroup (``wgmma``, sm_90a): 64 rows, `n` columns, 32 bytes along K.

Both operands lie in shared memory, rows of 128 bytes along K with the 128-byte swizzle
(`tma.py`); the sums are in registers. Warp ``w`` of the four and lane ``l`` hold, for each group
``j`` of eight columns, row ``16 w + 8 h + l // 4`` and column ``8 j + 2 (l % 4) + e`` in register
``4 j + 2 h + e``. (PTX manual, "Asynchronous Warpgroup Level Matrix Multiply-Accumulate
Instructions": register fragments, matrix descriptors.)

A product is under way from its issue until `wait` returns; until then nothing may touch its
registers, and its shared memory must stay. That the compiler keeps to it, `settle` says for each
register: it could otherwise move arithmetic across an instruction that has no operands.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from tvm import tirx
from tvm.backend.cuda.op import cuda_func_call
from tvm.tirx.script import builder

from .ptx import issue

#: TVM's builder; its annotations are narrower than what it gives.
T: Any = builder

#: Rows of a product, and bytes along K.
ROWS, BYTES = 64, 32

#: Threads of a warpgroup.
THREADS = 128

#: TVM's table of integer products ends here; ptxas takes 240 and 256, too.
_TABLE_ENDS = 224

_TYPES = {
    "int8": "s8",
    "float8_e4m3fn": "e4m3",
    "float8_e5m2": "e5m2",
    "float16": "f16",
    "bfloat16": "bf16",
}


@dataclasses.dataclass(frozen=True)
class Kind:
    """The types of a product.

    Attributes:
        left: dtype of the operand with the 64 rows.
        right: dtype of the one with the columns.
    """

    left: str
    right: str

    @property
    def item(self) -> int:
        """Bytes of an element."""
        return 2 if self.left in ("float16", "bfloat16") else 1

    @property
    def register(self) -> str:
        """dtype of the registers: integers' are uint32, whose bits are an int32."""
        return "uint32" if self.left == "int8" else "float32"

    @property
    def machine(self) -> str:
        """What the machine code is called."""
        if self.left == "int8":
            return "IGMMA"
        return "HGMMA" if self.item == 2 else "QGMMA"

    def columns(self) -> tuple[int, ...]:
        """The numbers of columns that there are."""
        if self.left != "int8":
            return tuple(range(8, 257, 8))
        return (8, 16, 24, *range(32, 257, 16))

    def instruction(self, columns: int) -> str:
        """As PTX writes it."""
        summed = BYTES // self.item
        result = "s32" if self.left == "int8" else "f32"
        return (
            f"wgmma.mma_async.sync.aligned.m64n{columns}k{summed}"
            f".{result}.{_TYPES[self.left]}.{_TYPES[self.right]}"
        )


def supported(left: str, right: str) -> bool:
    """Whether there are products of these dtypes."""
    if left not in _TYPES or right not in _TYPES:
        return False
    return left == right or {left, right} == {"float8_e4m3fn", "float8_e5m2"}


#: A descriptor's constant bits: swizzle of 128 bytes (1 at bit 62), 1024 bytes from eight rows to
#: the next eight (in units of 16, bit 32), and 1 at bit 16 where the swizzle has no use for it.
_CONSTANT = 1 << 62 | (1024 >> 4) << 32 | 1 << 16


def descriptor(address: Any) -> Any:
    """What a product calls an operand: uint64 for the uint32 address of its first row.

    Along K, 32 bytes further is 2 more.
    """
    unit = (address & T.uint32(0x3FFFF)) >> T.uint32(4)
    return tirx.Cast("uint64", unit) | tirx.const(_CONSTANT, "uint64")


def fence() -> None:
    """Registers written until now are seen by the products that follow."""
    issue("wgmma.fence.sync.aligned")


def product(
    kind: Kind, columns: int, sums: Sequence[Any], left: Any, right: Any, accumulate: Any
) -> None:
    """Issue ``sums = left · rightᵀ + (sums if accumulate else 0)``.

    Args:
        kind: the types.
        columns: one of `kind.columns()`.
        sums: columns / 2 registers, elements of a local buffer.
        left: descriptor.
        right: descriptor.
        accumulate: 0 or 1, or a bool expression; the same for all threads.
    """
    if isinstance(accumulate, int):
        accumulate = T.uint32(accumulate)
    if kind.left == "int8" and columns > _TABLE_ENDS:
        name = f"fewbits_wgmma_n{columns}_s8"
        source = _source(name, kind, columns)
        flag = tirx.Cast("uint32", accumulate)
        T.evaluate(cuda_func_call(name, *sums, left, right, flag, source_code=source))
        return
    immediates = (1, 1) if kind.register == "float32" else ()
    immediates += (0, 0) if kind.item == 2 else ()
    issue(kind.instruction(columns), *sums, left, right, T.ptx.pred(accumulate), *immediates)


def commit() -> None:
    """The products issued since the last time form a group."""
    issue("wgmma.commit_group.sync.aligned")


def wait(pending: int) -> None:
    """Return when all groups but the `pending` latest are done."""
    issue("wgmma.wait_group.sync.aligned", pending)


def settle(sums: Sequence[Any], dtype: str) -> None:
    """Wait for all products; `sums` may be read from then on.

    Args:
        sums: all registers of products under way.
        dtype: of the registers.
    """
    _touch("settle", "wgmma.wait_group.sync.aligned 0;", sums, dtype)


def defined(sums: Sequence[Any], dtype: str) -> None:
    """What was assigned to `sums` is in their registers here, not only where it is first used."""
    _touch("defined", "", sums, dtype)


def _touch(name: str, text: str, sums: Sequence[Any], dtype: str) -> None:
    """An instruction that, as the compiler sees it, reads and writes all of `sums`."""
    name = f"fewbits_wgmma_{name}_{dtype}_{len(sums)}"
    constraint = "f" if dtype == "float32" else "r"
    operands = ", ".join(f'"+{constraint}"(d{i})' for i in range(len(sums)))
    source = (
        f"__device__ __forceinline__ void {name}({_references(len(sums), dtype)}) {{\n"
        f'  asm volatile("{text}" : {operands} : : "memory");\n'
        "}\n"
    )
    T.evaluate(cuda_func_call(name, *sums, source_code=source))


def _references(count: int, dtype: str) -> str:
    c_type = {"float32": "float", "uint32": "unsigned int"}[dtype]
    return ", ".join(f"{c_type}& d{i}" for i in range(count))


def _source(name: str, kind: Kind, columns: int) -> str:
    """A device function for an integer product that TVM's table lacks."""
    count = columns // 2
    registers = ", ".join(f"%{i}" for i in range(count))
    operands = ", ".join(f'"+r"(d{i})' for i in range(count))
    return (
        f"__device__ __forceinline__ void {name}({_references(count, kind.register)}, "
        "unsigned long long left, unsigned long long right, unsigned int accumulate) {\n"
        f'  asm volatile("{{ .reg .pred p; setp.ne.b32 p, %{count + 2}, 0; '
        f'{kind.instruction(columns)} {{{registers}}}, %{count}, %{count + 1}, p; }}"\n'
        f'    : {operands} : "l"(left), "l"(right), "r"(accumulate) : "memory");\n'
        "}\n"
    )
