"""A product over the columns of a list, whose length is known to the GPU alone.

Tiles of both operands are gathered column by column into shared memory, as float16 or bfloat16,
whatever the weight is stored as; then they are multiplied like any other. Nothing waits for the
host, and a list of all columns is as right as an empty one, just slower.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from tvm import tirx
from tvm.ir import prim
from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script import builder

from ..architecture import Architecture
from ..epilogue import Epilogue
from ..host import Parameter, host_function
from ..intrinsics.mma import KINDS, load_matrices, multiply
from ..intrinsics.registers import held
from ..parameters import barrier, finished, launch, long, operand_shape
from ..template import Kernel

#: TVM's builder; its annotations are narrower than what it gives.
T: Any = builder

#: Results of a block, and columns gathered at a time.
_ROWS, _COLUMNS, _TERMS = 64, 64, 32
_WARPS = 4
#: A row of a tile in shared memory, padded so that eight of them lie in different banks.
_LINE = _TERMS + 8


@dataclasses.dataclass(frozen=True, eq=False)
class OutlierProduct:
    """``y[m, n] = epilogue(Σ_j x[m, list[j]] · w[n, list[j]])`` for j < count.

    Attributes:
        inputs: K.
        outputs: N.
        dtype: of x: ``float16`` or ``bfloat16``.
        weight: dtype of w [N, K]: that of x, or ``int8``, whose scales are the epilogue's.
        epilogue: of float32 sums.
    """

    inputs: int
    outputs: int
    dtype: str
    weight: str
    epilogue: Epilogue

    @property
    def key(self) -> str:
        """Text that equal problems share."""
        return (
            f"outliers {self.dtype} {self.weight} K={self.inputs} N={self.outputs} "
            f"-> {self.epilogue.key}"
        )

    def parameters(self, rows: Any) -> list[Parameter]:
        """x, list, count, weight, the epilogue's operands, y."""
        arrays: list[Parameter] = [
            ("x", (rows, self.inputs), self.dtype),
            ("list", (self.inputs,), "int32"),
            ("count", (1,), "int32"),
            ("weight", (self.outputs, self.inputs), self.weight),
        ]
        arrays += [
            (f"operand{place}", operand_shape(operand, rows, self.outputs), operand.dtype)
            for place, operand in enumerate(self.epilogue.operands)
        ]
        arrays.append(("y", (rows, self.outputs), self.epilogue.dtype))
        return arrays


def outlier_caller(problem: OutlierProduct, architecture: Architecture, kernel: Kernel) -> Any:
    """The function on the host that launches the kernel."""
    declared = problem.parameters(tirx.Var("m", "int64"))
    name = f"{kernel.name}_call"
    return host_function(name, architecture, declared, lambda call: call(kernel.name))


def outlier_product(problem: OutlierProduct, architecture: Architecture, name: str) -> Kernel:
    """The kernel; parameters as `OutlierProduct.parameters` says."""
    with IRBuilder() as ir_builder:
        with T.prim_func():
            T.func_name(name)
            T.func_attr({"global_symbol": name})
            _Block(problem).emit()
        function = ir_builder.get()
    return Kernel(name, function, architecture, "tirx", KINDS[problem.dtype].machine)


class _Block:
    """One block of threads: 64 rows and columns of the result; a warp has 16 of the rows."""

    def __init__(self, problem: OutlierProduct) -> None:
        self.problem = problem
        self.kind = KINDS[problem.dtype]

    def emit(self) -> None:
        """Emit parameters and body."""
        problem = self.problem
        self.rows = tirx.Var("m", "int64")
        x, places, count, weight, *operands, y = (
            T.arg(name, T.buffer(shape, dtype))
            for name, shape, dtype in problem.parameters(self.rows)
        )
        self.operands = tuple(operands)
        across = -(-problem.outputs // _COLUMNS)
        down = (self.rows + (_ROWS - 1)) // _ROWS
        block, self.thread = launch(down * across, 32 * _WARPS)
        self.lane, self.warp = self.thread % 32, self.thread // 32
        self.first_row = held(long(block // across) * _ROWS)
        self.first_column = held(long(block % across) * _COLUMNS)
        left = T.alloc_buffer((_ROWS * _LINE,), problem.dtype, scope="shared")
        right = T.alloc_buffer((_COLUMNS * _LINE,), problem.dtype, scope="shared")
        sums = T.alloc_buffer((_COLUMNS // 8 * 4,), "float32", scope="local")
        for place in range(_COLUMNS // 8 * 4):
            T.buffer_store(sums, prim.FloatImm("float32", 0.0), [place])
        total = held(count[0])
        with T.serial((total + (_TERMS - 1)) // _TERMS) as step:
            term = held(step * _TERMS + self.lane)
            there = held(tirx.Cast("int32", term < total))
            # The list ends before a term that is not there; column 0 always exists.
            column = held(tirx.if_then_else(there != 0, places[term], 0))
            self._gather(left, x, self.first_row, self.rows, column, there)
            self._gather(right, weight, self.first_column, problem.outputs, column, there)
            barrier()
            self._multiply(left, right, sums)
            barrier()
        self._store(sums, y)

    def _gather(
        self, tile: Any, source: Any, first: Any, end: Any, column: Any, there: Any
    ) -> None:
        """64 lines of the step's columns; a lane has a column, a warp every fourth line."""
        dtype = self.problem.dtype
        zero = prim.FloatImm(dtype, 0.0)
        with T.unroll(_ROWS // _WARPS) as turn:
            line = turn * _WARPS + self.warp
            inside = tirx.all(first + long(line) < end, there != 0)
            element = source[first + long(line), long(column)]
            if str(element.ty.dtype) != dtype:
                element = tirx.Cast(dtype, element)
            value = tirx.if_then_else(inside, element, zero)
            T.buffer_store(tile, value, [line * _LINE + self.lane])

    def _multiply(self, left: Any, right: Any, sums: Any) -> None:
        """Add the products of one step."""
        words = T.alloc_buffer((8,), "uint32", scope="local")
        matrix, row = self.lane // 8, self.lane % 8
        own = held((self.warp * 16 + matrix % 2 * 8 + row) * _LINE + matrix // 2 * 8)
        other = held((matrix // 2 * 8 + row) * _LINE + matrix % 2 * 8)
        for term in range(0, _TERMS, 16):
            load_matrices([words[i] for i in range(4)], T.address_of(left[own + term]))
            for pair in range(_COLUMNS // 16):
                at = other + pair * 16 * _LINE + term
                load_matrices([words[4 + i] for i in range(4)], T.address_of(right[at]))
                for half in range(2):
                    place = 4 * (2 * pair + half)
                    multiply(
                        self.kind,
                        [sums[place + i] for i in range(4)],
                        [words[i] for i in range(4)],
                        [words[4 + 2 * half + i] for i in range(2)],
                    )

    def _store(self, sums: Any, y: Any) -> None:
        """Store what the epilogue makes of the sums that are in the matrix."""
        for half in range(2):
            row = held(self.first_row + long(self.warp * 16 + self.lane // 4 + 8 * half))
            with T.If(row < self.rows), T.Then():
                for product in range(_COLUMNS // 8):
                    for i in range(2):
                        column = held(self.first_column + long(product * 8 + self.lane % 4 * 2 + i))
                        with T.If(column < self.problem.outputs), T.Then():
                            total = sums[4 * product + 2 * half + i]
                            value = finished(
                                self.problem.epilogue, self.operands, total, row, column
                            )
                            T.buffer_store(y, value, [row, column])
