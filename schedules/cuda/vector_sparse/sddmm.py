"""Dense times dense at the places of a vector-sparse mask (SDDMM): attention's scores (spec 14).

Both sides lie with K last. A product takes 16 of the mask's columns, gathered, as its rows, and the
outputs of one vector row as its columns; so results come out in the order of SR-BCRS.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from tvm import tirx
from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script import builder

from ..architecture import Architecture
from ..host import Parameter
from ..intrinsics.byte_products import multiply_bytes
from ..parameters import held, launch, long
from ..template import Kernel
from .layout import STRIDE, digits_of

#: TVM's builder; its annotations are narrower than what it gives.
T: Any = builder

_WARPS = 4


@dataclasses.dataclass(frozen=True)
class SampledProduct:
    """``y[n, j] = Σ_k a[n, k] · b[column_j, k]`` for a mask's vectors, exact in int32.

    Attributes:
        inputs: K, a multiple of 4: words of terms.
        rows: N, of a and of the mask.
        columns: of the mask: rows of b.
        length: rows of a vector: 2, 4 or 8.
        strides: of the mask (`SrBcrs.strides`).
        bits: of both sides: 4, 8 or 16.
    """

    inputs: int
    rows: int
    columns: int
    length: int
    strides: int
    bits: int

    def parameters(self) -> list[Parameter]:
        """a, b, ranges, columns, y: values in the order of `SrBcrs`, 0 where they fill up."""
        parts, strides = digits_of(self.bits), max(self.strides, 1)
        return [
            ("a", (parts, self.rows, self.inputs), "uint8"),
            ("b", (parts, self.columns, self.inputs), "uint8"),
            ("ranges", (2 * self.vector_rows,), "int32"),
            ("columns", (strides * STRIDE,), "int32"),
            ("y", (strides, self.length, STRIDE), "int32"),
        ]

    @property
    def vector_rows(self) -> int:
        """Of the mask."""
        return -(-self.rows // self.length)

    def refusal(self) -> str | None:
        """Why there is no kernel, or None where there is one."""
        return f"{self.inputs} terms are no multiple of 4" if self.inputs % 4 else None


def sampled_product(problem: SampledProduct, architecture: Architecture, name: str) -> Kernel:
    """The kernel; parameters as `SampledProduct.parameters` says."""
    with IRBuilder() as function:
        with T.prim_func():
            T.func_name(name)
            T.func_attr({"global_symbol": name})
            _Warp(problem).emit()
        made = function.get()
    return Kernel(name, made, architecture, "tirx", "IMMA")


class _Warp:
    """A warp: one vector row, all of its vectors."""

    def __init__(self, problem: SampledProduct) -> None:
        self.problem = problem
        self.parts = digits_of(problem.bits)

    def emit(self) -> None:
        """Emit parameters and body."""
        problem = self.problem
        a, b, ranges, self.columns, self.y = (
            T.arg(name, T.buffer(shape, dtype)) for name, shape, dtype in problem.parameters()
        )
        words = problem.inputs // 4
        self.a = T.decl_buffer((self.parts * problem.rows * words,), "uint32", data=a.data)
        self.b = T.decl_buffer((self.parts * problem.columns * words,), "uint32", data=b.data)
        blocks = tirx.const(-(-problem.vector_rows // _WARPS), "int64")
        block, thread = launch(blocks, 32 * _WARPS)
        lane = held(thread % 32)
        self.group, self.quarter = held(lane // 4), held(lane % 4)
        vector_row = held(block * _WARPS + thread // 32)
        self.sums = T.alloc_buffer((4 * self.parts**2,), "int32", scope="local")
        with T.If(vector_row < problem.vector_rows), T.Then():
            start, end = held(ranges[2 * vector_row]), held(ranges[2 * vector_row + 1])
            filled = (end - start + (STRIDE - 1)) // STRIDE * (STRIDE // 16)
            with T.serial(filled) as step:
                self._sixteen(vector_row, held(start + step * 16), end)

    def _sixteen(self, vector_row: Any, first: Any, end: Any) -> None:
        """The results of sixteen vectors."""
        problem, words = self.problem, self.problem.inputs // 4
        for place in range(4 * self.parts**2):
            T.buffer_store(self.sums, tirx.const(0, "int32"), [place])
        lines = []
        for half in range(2):
            column = self.columns[first + self.group + 8 * half]
            lines.append(held(long(tirx.max(column, 0)) * words))
        row = held(vector_row * problem.length + self.group)
        there = held(tirx.Cast("int32", tirx.all(self.group < problem.length, row < problem.rows)))
        own = held(long(tirx.if_then_else(there != 0, row, 0)) * words)
        with T.serial(-(-words // 8)) as step:
            self._multiply(step, lines, own, there)
        for half in range(2):
            vector = held(first + self.group + 8 * half)
            for pair in range(2):
                place = self.quarter * 2 + pair
                total: Any = tirx.const(0, "int32")
                for i in range(self.parts):
                    for j in range(self.parts):
                        count = self.sums[4 * (i * self.parts + j) + 2 * half + pair]
                        total = total + (count << tirx.const(8 * (i + j), "int32"))
                with T.If(place < problem.length), T.Then():
                    value = tirx.if_then_else(vector < end, total, tirx.const(0, "int32"))
                    T.buffer_store(self.y, value, [vector // STRIDE, place, vector % STRIDE])

    def _multiply(self, step: Any, lines: list[Any], own: Any, there: Any) -> None:
        """The products of 32 terms."""
        problem, words = self.problem, self.problem.inputs // 4
        left = T.alloc_buffer((4 * self.parts,), "uint32", scope="local")
        right = T.alloc_buffer((2 * self.parts,), "uint32", scope="local")
        zero = tirx.const(0, "uint32")
        for half in range(2):
            word = held(step * 8 + 4 * half + self.quarter)
            for part in range(self.parts):
                for side in range(2):
                    value = self.b[lines[side] + long(part * problem.columns * words + word)]
                    value = tirx.if_then_else(word < words, value, zero)
                    T.buffer_store(left, value, [4 * part + 2 * half + side])
                value = self.a[own + long(part * problem.rows * words + word)]
                inside = tirx.all(word < words, there != 0)
                T.buffer_store(right, tirx.if_then_else(inside, value, zero), [2 * part + half])
        for i in range(self.parts):
            for j in range(self.parts):
                multiply_bytes(
                    [self.sums[4 * (i * self.parts + j) + n] for n in range(4)],
                    [left[4 * i + n] for n in range(4)],
                    [right[2 * j + n] for n in range(2)],
                    left_signed=i == self.parts - 1,
                    right_signed=j == self.parts - 1,
                )
