"""Attention's kernel: scores and their exponentials live in registers only (online softmax).

A warp has 16 rows of q and walks over all keys, a piece at a time. What it has summed so far is
scaled down whenever a larger score appears, so no row of scores is ever whole anywhere. Products
are those of `mma.sync`, whose result's registers are, two by two, the left operand of the next.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from tvm import tirx
from tvm.ir import prim
from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script import builder

from ..architecture import Architecture
from ..intrinsics.mma import KINDS, commit, copy, load_matrices, multiply, wait
from ..intrinsics.registers import exp2, held, pack, quad
from ..parameters import barrier, launch, long
from ..template import Kernel
from .arguments import parameters, sizes_at_run_time
from .problem import Attention
from .sizes import COLUMNS, PADDING, ROWS, TERMS, Sizes, padded

#: TVM's builder; its annotations are narrower than what it gives.
T: Any = builder

_LOG2E = math.log2(math.e)
#: Masks are never lower, so that a row of which everything is masked has a softmax.
_LOWEST = -1e38
#: Elements in one asynchronous copy.
_COPIED = 8


def attention_kernel(
    problem: Attention, architecture: Architecture, sizes: Sizes, name: str
) -> Kernel:
    """The kernel with parameters q, k, v, [mask], result; shapes as `Attention.shape` says.

    With ``sizes.parts`` it leaves sums and states for `combine.combine_parts`.
    """
    with IRBuilder() as ir_builder:
        with T.prim_func():
            T.func_name(name)
            T.func_attr({"global_symbol": name})
            _Block(problem, sizes).emit()
        function = ir_builder.get()
    return Kernel(name, function, architecture, "tirx", KINDS[problem.dtype].machine)


@dataclasses.dataclass
class _Rows:
    """What a lane knows of its two rows.

    Attributes:
        largest, total: float32 buffers [2]: largest score so far, sum of exponentials.
        sums: float32 buffer: the results, four registers a product.
    """

    largest: Any
    total: Any
    sums: Any


class _Block:
    """One block of threads: `sizes.rows` rows of one head."""

    def __init__(self, problem: Attention, sizes: Sizes) -> None:
        self.problem = problem
        self.sizes = sizes
        self.kind = KINDS[problem.dtype]
        self.width = padded(problem.size)
        self.value_width = padded(problem.value_size)
        self.key_line = self.width + PADDING
        self.value_line = self.value_width + PADDING

    def emit(self) -> None:
        """Emit parameters and body."""
        problem, sizes = self.problem, self.sizes
        batch, self.rows, self.columns = sizes_at_run_time()
        declared = parameters(problem, batch, self.rows, self.columns, sizes.parts)
        buffers = [T.arg(name, T.buffer(shape, dtype)) for name, shape, dtype in declared]
        q, k, v = buffers[:3]
        self.mask = buffers[3] if problem.mask is not None else None
        down = (self.rows + (sizes.rows - 1)) // sizes.rows
        grid, self.thread = launch(batch * problem.heads * down * sizes.parts, sizes.threads)
        block = held(grid // sizes.parts)
        self.part = held(grid % sizes.parts)
        self.lane = self.thread % 32
        self.warp = self.thread // 32
        head = held(long(block) // down)
        self.batch, self.head = held(head // problem.heads), held(head % problem.heads)
        self.first = held(long(block) % down * sizes.rows)
        self._allocate()
        self._walk(q, k, v)
        if sizes.parts > 1:
            self._store_part(*buffers[-2:])
        else:
            self._store(buffers[-1])

    def _allocate(self) -> None:
        sizes, problem = self.sizes, self.problem
        self.shared = T.alloc_buffer(
            (sizes.shared_memory(problem) // 2,), problem.dtype, scope="shared.dyn"
        )
        self.keys_at = sizes.rows * self.key_line
        self.values_at = self.keys_at + sizes.stages * sizes.columns * self.key_line

        def local(count: int, dtype: str = "float32") -> Any:
            return T.alloc_buffer((count,), dtype, scope="local")

        self.queries = local(self.width // TERMS * 4, "uint32")
        self.words = local(4, "uint32")
        self.scores = local(sizes.columns // COLUMNS * 4)
        self.own = _Rows(local(2), local(2), local(self.value_width // COLUMNS * 4))
        for buffer, value, count in (
            (self.own.largest, -math.inf, 2), (self.own.total, 0.0, 2),
            (self.own.sums, 0.0, self.value_width // COLUMNS * 4),
        ):  # fmt: skip
            for place in range(count):
                T.buffer_store(buffer, prim.FloatImm("float32", value), [place])

    def _walk(self, q: Any, k: Any, v: Any) -> None:
        """All keys and values, the next piece on its way while one is computed with."""
        sizes = self.sizes
        steps: Any = (self.columns + (sizes.columns - 1)) // sizes.columns
        begin: Any = tirx.const(0, "int64")
        if sizes.parts > 1:
            share = held((steps + (sizes.parts - 1)) // sizes.parts)
            begin = held(tirx.min(long(self.part) * share, steps))
            steps = held(tirx.min(begin + share, steps))
        self._fetch(q, 0, self.first, self.rows, sizes.rows, 0, self.width, self.key_line)
        commit()
        self._fetch_piece(k, v, begin)
        wait(1)
        barrier()
        for term in range(self.width // TERMS):
            self._load(self.queries, 4 * term, self._query_place(term))
        with T.serial(steps - begin) as step:
            step = T.Bind(begin + long(step))
            if sizes.stages > 1:
                with T.If(step + 1 < steps):
                    with T.Then():
                        self._fetch_piece(k, v, step + 1)
                    with T.Else():
                        commit()
                wait(1)
            else:
                with T.If(step > begin), T.Then():
                    self._fetch_piece(k, v, step)
                wait(0)
            barrier()
            stage = T.Bind(tirx.Cast("int32", step % sizes.stages))
            self._score(stage)
            self._exponentials(step * sizes.columns)
            self._sum(stage)
            barrier()
        if sizes.parts > 1:
            wait(0)  # for what a block without columns has begun to copy

    def _fetch_piece(self, k: Any, v: Any, step: Any) -> None:
        """Begin to copy the keys and values of a step, as one group."""
        sizes = self.sizes
        first = T.Bind(step * sizes.columns)
        stage = T.Bind(tirx.Cast("int32", step % sizes.stages))
        for operand, place, at, width, line in (
            (k, 1, self.keys_at, self.width, self.key_line),
            (v, 2, self.values_at, self.value_width, self.value_line),
        ):
            to = at + stage * (sizes.columns * line)
            self._fetch(operand, place, first, self.columns, sizes.columns, to, width, line)
        commit()

    def _fetch(
        self, source: Any, place: int, first: Any, end: Any, count: int, to: Any, width: int,
        line: int,
    ) -> None:  # fmt: skip
        """Begin to copy `count` tokens from `first` on; what is not there is zero."""
        pieces, threads = width // _COPIED, self.sizes.threads
        size = self.problem.value_size if place > 1 else self.problem.size
        with T.unroll(-(-count * pieces // threads)) as turn:
            number = turn * threads + self.thread
            token, piece = number // pieces, number % pieces * _COPIED

            def one() -> None:
                there = first + long(token) < end
                if width > size:
                    there = tirx.all(there, piece < size)
                # Addresses stay inside the array even where nothing is read.
                kept = tirx.min(first + long(token), end - 1)
                column = piece if width == size else tirx.min(piece, size - _COPIED)
                address = T.address_of(source[self._place(place, kept, long(column))])
                copy(T.address_of(self.shared[to + token * line + piece]), address, there)

            if count * pieces % threads == 0:
                one()
            else:
                with T.If(number < count * pieces), T.Then():
                    one()

    def _place(self, operand: int, token: Any, element: Any) -> tuple[Any, ...]:
        """Indices of an element of the block's head."""
        head = self.head // self.problem.shared if operand in (1, 2) else self.head
        if self.problem.heads_first[operand]:
            return (self.batch, head, token, element)
        return (self.batch, token, head, element)

    def _load(self, words: Any, first: int, at: Any, transposed: bool = False) -> None:
        """Four matrices from shared memory to registers; a lane names its row of them."""
        registers = [words[first + i] for i in range(4)]
        load_matrices(registers, T.address_of(self.shared[at]), transposed=transposed)

    def _query_place(self, term: int) -> Any:
        """The lane's row of the left operand: matrices go down the rows first."""
        matrix, row = self.lane // 8, self.lane % 8
        token = self.warp * ROWS + matrix % 2 * 8 + row
        return token * self.key_line + term * TERMS + matrix // 2 * 8

    def _score(self, stage: Any) -> None:
        """Scores of the block's rows and the piece's keys."""
        sizes = self.sizes
        for place in range(sizes.columns // COLUMNS * 4):
            T.buffer_store(self.scores, prim.FloatImm("float32", 0.0), [place])
        matrix, row = self.lane // 8, self.lane % 8
        # Keys are the columns: each pair of products reads two matrices along the terms, twice.
        base = self.keys_at + stage * (sizes.columns * self.key_line)
        lane = held(base + (matrix // 2 * 8 + row) * self.key_line + matrix % 2 * 8)
        for pair in range(sizes.columns // 16):
            for term in range(self.width // TERMS):
                self._load(self.words, 0, lane + pair * 16 * self.key_line + term * TERMS)
                left = [self.queries[4 * term + i] for i in range(4)]
                for half in range(2):
                    right = [self.words[2 * half + i] for i in range(2)]
                    at = 4 * (2 * pair + half)
                    multiply(self.kind, [self.scores[at + i] for i in range(4)], left, right)

    def _exponentials(self, first: Any) -> None:
        """Scores become exponentials over the rows' largest; older sums are scaled down."""
        products = self.sizes.columns // COLUMNS
        for product in range(products):
            for i in range(4):
                at = 4 * product + i
                T.buffer_store(self.scores, self._score_of(first, product, i), [at])
        for half in range(2):
            mine = [self.scores[4 * p + 2 * half + i] for p in range(products) for i in range(2)]
            largest = mine[0]
            for score in mine[1:]:
                largest = tirx.max(largest, score)
            new = held(tirx.max(self.own.largest[half], quad(tirx.max, largest)))
            factor = held(exp2(self.own.largest[half] - new))
            T.buffer_store(self.own.largest, new, [half])
            T.buffer_store(self.own.total, self.own.total[half] * factor, [half])
            for product in range(products):
                for i in range(2):
                    at = 4 * product + 2 * half + i
                    T.buffer_store(self.scores, exp2(self.scores[at] - new), [at])
                    total = self.own.total[half] + self.scores[at]
                    T.buffer_store(self.own.total, total, [half])
            for product in range(self.value_width // COLUMNS):
                for i in range(2):
                    at = 4 * product + 2 * half + i
                    T.buffer_store(self.own.sums, self.own.sums[at] * factor, [at])

    def _score_of(self, first: Any, product: int, i: int) -> Any:
        """A scaled and masked score, as an exponent of two; minus infinity beyond the last key."""
        column = first + long(product * COLUMNS + self.lane % 4 * 2 + i % 2)
        score = self.scores[4 * product + i] * prim.FloatImm("float32", self.problem.scale * _LOG2E)
        if self.problem.mask is not None and self.mask is not None:
            over = self.problem.mask
            row = tirx.min(self._row(i // 2), self.rows - 1)
            kept = tirx.min(column, self.columns - 1)
            added = self.mask[
                self.batch if over.batch else 0, self.head if over.heads else 0,
                row if over.rows else 0, kept,
            ]  # fmt: skip
            added = tirx.max(added, prim.FloatImm("float32", _LOWEST))
            score = score + added * prim.FloatImm("float32", _LOG2E)
        nothing = prim.FloatImm("float32", -math.inf)
        return tirx.Select(column < self.columns, score, nothing)

    def _row(self, half: int) -> Any:
        """The lane's first or second row."""
        return self.first + long(self.warp * ROWS + self.lane // 4 + 8 * half)

    def _sum(self, stage: Any) -> None:
        """Add the piece's values, weighted by the exponentials."""
        sizes = self.sizes
        matrix, row = self.lane // 8, self.lane % 8
        base = self.values_at + stage * (sizes.columns * self.value_line)
        lane = held(base + (matrix % 2 * 8 + row) * self.value_line + matrix // 2 * 8)
        for term in range(sizes.columns // TERMS):
            # The registers of two products' results are those of one product's left operand.
            pairs = [8 * term + 2 * i for i in range(4)]
            left = [
                held(pack(self.problem.dtype, self.scores[at], self.scores[at + 1])) for at in pairs
            ]
            for pair in range(self.value_width // 16):
                at = lane + term * TERMS * self.value_line + pair * 16
                self._load(self.words, 0, at, transposed=True)
                for half in range(2):
                    right = [self.words[2 * half + i] for i in range(2)]
                    at = 4 * (2 * pair + half)
                    multiply(self.kind, [self.own.sums[at + i] for i in range(4)], left, right)

    def _store(self, result: Any) -> None:
        """Divide by the sums of exponentials, and store two neighbours at a time."""
        problem = self.problem
        shape = [*result.shape[:-1], problem.value_size // 2]
        pairs = T.decl_buffer(shape, "uint32", data=result.data)
        for half in range(2):
            total = quad(lambda a, b: a + b, self.own.total[half])
            share = held(prim.FloatImm("float32", 1.0) / total)
            row = held(self._row(half))
            with T.If(row < self.rows), T.Then():
                for product in range(problem.value_size // COLUMNS):
                    at = 4 * product + 2 * half
                    values = [self.own.sums[at + i] * share for i in range(2)]
                    place = self._place(3, row, long(product * 4 + self.lane % 4))
                    T.buffer_store(pairs, pack(problem.dtype, *values), list(place))

    def _store_part(self, sums: Any, states: Any) -> None:
        """What this part of the columns gives: weighted sums, largest scores, their sums."""
        for half in range(2):
            total = held(quad(lambda a, b: a + b, self.own.total[half]))
            row = held(self._row(half))
            at = [long(self.part), self.batch, self.head, row]
            with T.If(row < self.rows), T.Then():
                with T.If(self.lane % 4 == 0), T.Then():
                    T.buffer_store(states, self.own.largest[half], [*at, 0])
                    T.buffer_store(states, total, [*at, 1])
                for product in range(self.problem.value_size // COLUMNS):
                    for i in range(2):
                        column = long(product * COLUMNS + self.lane % 4 * 2 + i)
                        value = self.own.sums[4 * product + 2 * half + i]
                        T.buffer_store(sums, value, [*at, column])
