"""The kernel: tiles in shared memory, results in registers, a guard on every access.

Rows that are not there and terms beyond K are zeros in shared memory, so the inner loop has no
conditions; results that are not there are not stored. Everything is read one element at a time,
which needs no alignment beyond an element's own.
"""

from __future__ import annotations

from typing import Any

from tvm import tirx
from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script import builder as T

from ..parameters import Parameters, barrier, launch, long
from ..problem import Linear
from .float8 import FORMATS, decoded
from .sizes import Sizes, packed


def kernel(problem: Linear, sizes: Sizes, name: str) -> Any:
    """The PrimFunc of a dense product. Parameters as `Linear` says."""
    with IRBuilder() as builder:
        with T.prim_func():
            T.func_name(name)
            T.func_attr({"global_symbol": name})
            _Block(Parameters.declare(problem), sizes).emit()
        return builder.get()


class _Block:
    """One block of threads: `sizes.rows` by `sizes.columns` results."""

    def __init__(self, parameters: Parameters, sizes: Sizes) -> None:
        problem = parameters.problem
        self.parameters = parameters
        self.sizes = sizes
        self.words = packed(problem)
        #: Terms of a sum, as they lie in shared memory.
        self.terms = problem.inputs // 4 if self.words else problem.inputs
        self.held = "int32" if problem.accumulator == "int32" else "float32"
        self.across = -(-problem.outputs // sizes.columns)

    def emit(self) -> None:
        """Emit the kernel's body."""
        sizes, problem, rows = self.sizes, self.parameters.problem, self.parameters.rows
        down = (rows + (sizes.rows - 1)) // sizes.rows
        block, thread = launch(down * self.across, sizes.threads)
        first_row = T.Bind(long(block // self.across) * sizes.rows)
        first_column = T.Bind(long(block % self.across) * sizes.columns)
        left = T.alloc_buffer((sizes.depth, sizes.rows + 1), self.held, scope="shared")
        right = T.alloc_buffer((sizes.depth, sizes.columns + 1), self.held, scope="shared")
        count = sizes.thread_rows * sizes.thread_columns
        sums = T.alloc_buffer((count,), problem.accumulator, scope="local")
        with T.unroll(count) as i:
            T.buffer_store(sums, tirx.const(0, problem.accumulator), [i])
        x, weight = self.parameters.x, self.parameters.weight[0]
        seen = "int32" if self.words else "uint8" if problem.activation in FORMATS else None
        if seen:
            x = T.decl_buffer((rows, self.terms), seen, data=x.data)
            weight = T.decl_buffer((problem.outputs, self.terms), seen, data=weight.data)
        with T.serial(-(-self.terms // sizes.depth)) as step:
            start = T.Bind(step * sizes.depth)
            self._load(left, x, sizes.rows, first_row, rows, start, thread)
            self._load(right, weight, sizes.columns, first_column, problem.outputs, start, thread)
            barrier()
            self._multiply(left, right, sums, thread)
            barrier()
        self._store(sums, first_row, first_column, thread)

    def _load(
        self, tile: Any, source: Any, lines: int, first: Any, end: Any, start: Any, thread: Any
    ) -> None:
        """Copy `lines` lines from `first` on, transposed; what is not there is zero."""
        depth, threads = self.sizes.depth, self.sizes.threads
        zero = tirx.const(0, self.held)
        with T.unroll(-(-lines * depth // threads)) as turn:
            place = turn * threads + thread
            line, term = place // depth, place % depth

            def copy(line: Any = line, term: Any = term) -> None:
                there = tirx.all(first + long(line) < end, start + term < self.terms)
                element = source[first + long(line), long(start + term)]
                value = self._held(element)
                T.buffer_store(tile, tirx.if_then_else(there, value, zero), [term, line])

            if lines * depth % threads == 0:
                copy()
            else:
                with T.If(place < lines * depth), T.Then():
                    copy()

    def _held(self, element: Any) -> Any:
        """An element as it lies in shared memory."""
        if self.words:
            return element
        activation = self.parameters.problem.activation
        if activation in FORMATS:
            return decoded(activation, element)
        return tirx.Cast(self.held, element)

    def _multiply(self, left: Any, right: Any, sums: Any, thread: Any) -> None:
        """Add the products of one step."""
        sizes = self.sizes
        row, column = self._own(thread)
        a = T.alloc_buffer((sizes.thread_rows,), self.held, scope="local")
        b = T.alloc_buffer((sizes.thread_columns,), self.held, scope="local")
        with T.unroll(sizes.depth) as term:
            for i in range(sizes.thread_rows):
                T.buffer_store(a, left[term, row(i)], [i])
            for j in range(sizes.thread_columns):
                T.buffer_store(b, right[term, column(j)], [j])
            for i in range(sizes.thread_rows):
                for j in range(sizes.thread_columns):
                    place = i * sizes.thread_columns + j
                    T.buffer_store(sums, self._add(sums[place], a[i], b[j]), [place])

    def _add(self, total: Any, a: Any, b: Any) -> Any:
        if self.words:
            return tirx.call_pure_extern("int32", "__dp4a", a, b, total)
        return total + a * b

    def _own(self, thread: Any) -> tuple[Any, Any]:
        """A thread's rows and columns: neighbours in a warp read neighbouring words."""
        sizes = self.sizes
        down, across = sizes.rows // sizes.thread_rows, sizes.columns // sizes.thread_columns
        return (
            lambda i: thread // across + i * down,
            lambda j: thread % across + j * across,
        )

    def _store(self, sums: Any, first_row: Any, first_column: Any, thread: Any) -> None:
        """Store what the epilogue makes of the sums that are in the matrix."""
        sizes, parameters = self.sizes, self.parameters
        row_of, column_of = self._own(thread)
        for i in range(sizes.thread_rows):
            row = T.Bind(first_row + long(row_of(i)))
            for j in range(sizes.thread_columns):
                column = T.Bind(first_column + long(column_of(j)))
                there = tirx.all(row < parameters.rows, column < parameters.problem.outputs)
                with T.If(there), T.Then():
                    total = sums[i * sizes.thread_columns + j]
                    T.buffer_store(
                        parameters.y, parameters.value(total, row, column), [row, column]
                    )
