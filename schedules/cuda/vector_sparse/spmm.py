"""Vector-sparse times dense (SpMM): gathered rows, transposed in registers (Magicube, spec 14).

The dense side lies with K first, so a vector's row is a run of neighbours. A lane loads words of
four neighbours from four rows, and transposes them: then each word has four terms of one sum. Which
results a lane has is permuted thereby, which only the end of the kernel has to know.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from tvm import tirx
from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script import builder

from ..architecture import Architecture
from ..epilogue import Epilogue
from ..host import Parameter, host_function
from ..intrinsics.byte_products import multiply_bytes, transpose_bytes
from ..parameters import finished, held, launch, long, operand_shape
from ..template import Kernel
from .layout import STRIDE, SrBcrs, digits, digits_of

#: TVM's builder; its annotations are narrower than what it gives.
T: Any = builder

#: Columns of the dense side that a warp has: four products of 16, and warps of a block.
TOKENS, _WARPS = 64, 4


@dataclasses.dataclass(frozen=True, eq=False)
class SparseProduct:
    """``y[m, n] = epilogue(Σ_k x[k, m] · w[n, k])`` where w is vector-sparse; exact in int32.

    Attributes:
        inputs: K.
        outputs: N.
        length: outputs of a vector: 2, 4 or 8.
        strides: of the stored weight (`SrBcrs.strides`).
        w_bits: of the sparse side ("L"): 4, 8, 12 or 16.
        x_bits: of the dense side ("R"): 4, 8 or 16.
        epilogue: from an int32 sum to what is stored.
    """

    inputs: int
    outputs: int
    length: int
    strides: int
    w_bits: int
    x_bits: int
    epilogue: Epilogue

    @property
    def key(self) -> str:
        """Text that equal problems share."""
        return (
            f"vector-sparse {self.length} L{self.w_bits}-R{self.x_bits} K={self.inputs} "
            f"N={self.outputs} strides={self.strides} -> {self.epilogue.key}"
        )

    def parameters(self, rows: Any, line: Any) -> list[Parameter]:
        """x, ranges, columns, values, the epilogue's operands, y.

        Args:
            rows: M.
            line: from a row of x to the next: a multiple of 64 that is at least M.
        """
        vector_rows = -(-self.outputs // self.length)
        # A weight of nothing but zeros still has arrays.
        strides = max(self.strides, 1)
        values = (digits_of(self.w_bits), strides, self.length, STRIDE)
        arrays: list[Parameter] = [
            ("x", (digits_of(self.x_bits), self.inputs, line), "uint8"),
            ("ranges", (2 * vector_rows,), "int32"),
            ("columns", (strides * STRIDE,), "int32"),
            ("values", values, "uint8"),
        ]
        arrays += [
            (f"operand{place}", operand_shape(operand, rows, self.outputs), operand.dtype)
            for place, operand in enumerate(self.epilogue.operands)
        ]
        arrays.append(("y", (rows, self.outputs), self.epilogue.dtype))
        return arrays

    def pack_weight(self, weight: SrBcrs) -> tuple[Any, ...]:
        """ranges, columns, values."""
        import numpy as np

        values, columns = digits(weight.values, self.w_bits), weight.columns
        if not weight.strides:
            values = np.zeros((len(values), 1, self.length, STRIDE), np.uint8)
            columns = np.full(STRIDE, -1, np.int32)
        return weight.ranges, columns, values


def sparse_product(problem: SparseProduct, architecture: Architecture, name: str) -> Kernel:
    """The kernel; parameters as `SparseProduct.parameters` says."""
    with IRBuilder() as function:
        with T.prim_func():
            T.func_name(name)
            T.func_attr({"global_symbol": name})
            _Warp(problem).emit()
        made = function.get()
    return Kernel(name, made, architecture, "tirx", "IMMA")


def sparse_caller(problem: SparseProduct, architecture: Architecture, kernel: Kernel) -> Any:
    """The function on the host that launches the kernel."""
    declared = problem.parameters(tirx.Var("m", "int64"), tirx.Var("line", "int64"))
    return host_function(
        f"{kernel.name}_call", architecture, declared, lambda call: call(kernel.name)
    )


class _Warp:
    """A warp: one vector row times 64 columns of the dense side."""

    def __init__(self, problem: SparseProduct) -> None:
        self.problem = problem
        self.left, self.right = digits_of(problem.x_bits), digits_of(problem.w_bits)
        # Where vectors are short, digits lie side by side in a product's eight columns. The
        # lowest have no sign and the top one has, so only digits of one kind could share;
        # with two at most, each has its own product.
        self.products = self.left * self.right

    def emit(self) -> None:
        """Emit parameters and body."""
        problem = self.problem
        self.rows, line = tirx.Var("m", "int64"), tirx.Var("line", "int64")
        x, ranges, columns, values, *operands, y = (
            T.arg(name, T.buffer(shape, dtype))
            for name, shape, dtype in problem.parameters(self.rows, line)
        )
        vector_rows = -(-problem.outputs // problem.length)
        across = -(-vector_rows // _WARPS)
        down = (self.rows + (TOKENS - 1)) // TOKENS
        block, thread = launch(down * across, 32 * _WARPS)
        self.lane = held(thread % 32)
        self.group, self.quarter = held(self.lane // 4), held(self.lane % 4)
        self.token = held(long(block // across) * TOKENS + long(self.group * 4))
        vector_row = held(block % across * _WARPS + thread // 32)
        self.words = T.decl_buffer(
            (self.left * problem.inputs * (line // 4),), "uint32", data=x.data
        )
        self.line = held(line // 4)
        self.values = T.decl_buffer(
            (self.right * max(problem.strides, 1) * problem.length * STRIDE // 4,),
            "uint32",
            data=values.data,
        )
        self.sums = T.alloc_buffer((16 * self.products,), "int32", scope="local")
        for place in range(16 * self.products):
            T.buffer_store(self.sums, tirx.const(0, "int32"), [place])
        with T.If(vector_row < vector_rows), T.Then():
            start, end = held(ranges[2 * vector_row]), held(ranges[2 * vector_row + 1])
            with T.serial((end - start + (STRIDE - 1)) // STRIDE) as step:
                self._step(columns, held(start // STRIDE + step))
            self._store(vector_row, tuple(operands), y)

    def _step(self, columns: Any, stride: Any) -> None:
        """The products of one stride."""
        problem = self.problem
        b = T.alloc_buffer((2 * self.right,), "uint32", scope="local")
        for digit in range(self.right):
            for half in range(2):
                at = digit * max(problem.strides, 1) + stride
                place = (at * problem.length + self.group) * 8 + self.quarter + 4 * half
                word = self.values[place]
                if problem.length < 8:  # lanes of other groups have columns that do not exist
                    zero = tirx.const(0, "uint32")
                    word = tirx.if_then_else(self.group < problem.length, word, zero)
                T.buffer_store(b, word, [2 * digit + half])
        lines = []
        for half in range(2):
            for j in range(4):
                column = columns[stride * STRIDE + 16 * half + self.quarter * 4 + j]
                # What only fills up has values of zero: any row will do.
                lines.append(held(long(tirx.max(column, 0)) * self.line + self.token // 4))
        for digit in range(self.left):
            self._digit(digit, lines, b)

    def _digit(self, digit: int, lines: list[Any], b: Any) -> None:
        """One digit of the dense side, times all digits of the sparse one."""
        a = T.alloc_buffer((16,), "uint32", scope="local")
        offset = digit * self.problem.inputs
        for half in range(2):
            for side in range(2):
                rows = [
                    held(self.words[line + (self.line * offset + 8 * side)])
                    for line in lines[4 * half : 4 * half + 4]
                ]
                # Word w of tile i: rows of the first or second 32 columns, terms 0.. or 16...
                transpose_bytes([a[4 * i + 2 * half + side] for i in range(4)], rows)
        for other in range(self.right):
            first = 16 * (digit * self.right + other)
            for tile in range(4):
                multiply_bytes(
                    [self.sums[first + 4 * tile + word] for word in range(4)],
                    [a[4 * tile + word] for word in range(4)],
                    [b[2 * other + word] for word in range(2)],
                    left_signed=digit == self.left - 1,
                    right_signed=other == self.right - 1,
                )

    def _store(self, vector_row: Any, operands: tuple[Any, ...], y: Any) -> None:
        """Row g of tile i is column 4 g + i of the dense side, row g + 8 column 32 + 4 g + i."""
        problem = self.problem
        for tile in range(4):
            for side in range(2):
                row = held(self.token + (32 * side + tile))
                for pair in range(2):
                    place = self.quarter * 2 + pair
                    column = held(long(vector_row * problem.length + place))
                    inside = [row < self.rows, column < problem.outputs]
                    if problem.length < 8:
                        inside.append(place < problem.length)
                    with T.If(tirx.all(*inside)), T.Then():
                        value = finished(
                            problem.epilogue, operands, self._total(4 * tile + 2 * side + pair),
                            row, column,
                        )  # fmt: skip
                        T.buffer_store(y, value, [row, column])

    def _total(self, at: int) -> Any:
        total: Any = tirx.const(0, "int32")
        for left in range(self.left):
            for right in range(self.right):
                count = self.sums[16 * (left * self.right + right) + at]
                total = total + (count << tirx.const(8 * (left + right), "int32"))
        return total
