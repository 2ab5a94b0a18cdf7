"""Attention in int8: both products on bytes, the softmax between them in float32 (spec 2, 4).

The exponentials of a row are rounded to 127 levels of its largest, which is known only when all
scores are. So keys are walked over twice: first for the largest score and the sum of exponentials,
then for the codes ``round(127 · exp(s - largest))`` and their product with the values, whose sums
are exact integers. Nothing but the result is ever stored.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from tvm import tirx
from tvm.backend.cuda.op import cuda_func_call
from tvm.ir import prim
from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script import builder

from ..architecture import Architecture
from ..host import Parameter, host_function
from ..intrinsics.mma import KINDS, commit, copy, load_matrices, multiply, wait
from ..intrinsics.registers import exp2, held, pack, quad
from ..parameters import barrier, launch, long
from ..template import Kernel
from .arguments import sizes_at_run_time
from .problem import Mask

#: TVM's builder; its annotations are narrower than what it gives.
T: Any = builder

_LOG2E = math.log2(math.e)
#: Masks are never lower, so that a row of which everything is masked has a softmax.
_LOWEST = -1e38
#: The largest code of an exponential.
_REACH = 127.0
#: Rows of a warp, keys at a time, bytes of one copy and of one product's terms.
_ROWS, _COLUMNS, _COPY, _TERMS = 16, 64, 16, 32
_WARPS = 4

_PERMUTE = """
__device__ __forceinline__ unsigned fewbits_permute(unsigned a, unsigned b, unsigned order) {
  return __byte_perm(a, b, order);
}
"""
#: Every second byte of two words: for values of even and of odd places.
_ORDERS = (0x6420, 0x7531)


@dataclasses.dataclass(frozen=True)
class Int8Attention:
    """``softmax(scale · q kᵀ + mask) v`` of codes, for each batch and head.

    Batch, rows (of q) and columns (of k and v) are known at run time only. An operand lies as
    [batch, tokens, heads, size], or [batch, heads, tokens, size] where `heads_first` says so; the
    scales of q and k lie like their rows.

    Attributes:
        heads: how many.
        size: elements of a head of q and k.
        value_size: of v and the result.
        scale: what scores are multiplied by, besides the scales of q and k.
        dtype: of the result: ``float16`` or ``bfloat16``.
        mask: what is added to the scores, or None.
        heads_first: of q, k, v and the result.
    """

    heads: int
    size: int
    value_size: int
    scale: float
    dtype: str
    mask: Mask | None = None
    heads_first: tuple[bool, bool, bool, bool] = (True, True, True, True)

    def refusal(self) -> str | None:
        """Why there is no kernel, or None where there is one."""
        if self.dtype not in ("float16", "bfloat16"):
            return f"results are half floats, not {self.dtype}"
        for size in (self.size, self.value_size):
            if size % _COPY:
                return f"a head of {size} bytes is no multiple of {_COPY}"
            if size > 256:
                return f"a head of {size} elements does not fit the registers"
        return None

    def parameters(self, batch: Any, rows: Any, columns: Any) -> list[Parameter]:
        """q, its scales, k, its scales, v, its scale, [mask], result."""
        q, k, v, result = (
            self.shape(place, batch, tokens)
            for place, tokens in enumerate((rows, columns, columns, rows))
        )
        arrays: list[Parameter] = [
            ("q", q, "int8"),
            ("q_scales", q[:3], "float32"),
            ("k", k, "int8"),
            ("k_scales", k[:3], "float32"),
            ("v", v, "int8"),
            ("v_scale", (1,), "float32"),
        ]
        if self.mask is not None:
            over = self.mask
            shape = (
                batch if over.batch else 1, self.heads if over.heads else 1,
                rows if over.rows else 1, columns,
            )  # fmt: skip
            arrays.append(("mask", shape, "float32"))
        arrays.append(("result", result, self.dtype))
        return arrays

    def shape(self, place: int, batch: Any, tokens: Any) -> tuple[Any, ...]:
        """Shape of operand `place` (q, k, v, result)."""
        size = self.value_size if place > 1 else self.size
        if self.heads_first[place]:
            return (batch, self.heads, tokens, size)
        return (batch, tokens, self.heads, size)


def int8_attention(
    problem: Int8Attention, architecture: Architecture, name: str
) -> tuple[Kernel, Any]:
    """The kernel and the function on the host that launches it."""
    with IRBuilder() as ir_builder:
        with T.prim_func():
            T.func_name(name)
            T.func_attr({"global_symbol": name})
            _Block(problem).emit()
        function = ir_builder.get()
    declared = problem.parameters(*sizes_at_run_time())
    host = host_function(f"{name}_call", architecture, declared, lambda call: call(name))
    return Kernel(name, function, architecture, "tirx", KINDS["int8"].machine), host


class _Block:
    """One block of threads: 64 rows of one head."""

    def __init__(self, problem: Int8Attention) -> None:
        self.problem = problem
        self.width = -(-problem.size // _TERMS) * _TERMS
        #: Bytes of a line in shared memory: padded, so that eight lie in different banks.
        self.key_line = self.width + _COPY
        self.value_line = problem.value_size + _COPY

    def emit(self) -> None:
        """Emit parameters and body."""
        problem = self.problem
        batch, self.rows, self.columns = sizes_at_run_time()
        declared = problem.parameters(batch, self.rows, self.columns)
        buffers = [T.arg(name, T.buffer(shape, dtype)) for name, shape, dtype in declared]
        self.q, self.q_scales, self.k, self.k_scales, self.v, v_scale = buffers[:6]
        self.mask = buffers[6] if problem.mask is not None else None
        down = (self.rows + (_ROWS * _WARPS - 1)) // (_ROWS * _WARPS)
        block, self.thread = launch(batch * problem.heads * down, 32 * _WARPS)
        self.lane, self.warp = self.thread % 32, self.thread // 32
        head = held(long(block) // down)
        self.batch, self.head = held(head // problem.heads), held(head % problem.heads)
        self.first = held(long(block) % down * (_ROWS * _WARPS))
        self._allocate()
        self._fetch(0, self.q, self.first, self.rows, _ROWS * _WARPS, 0)
        commit()
        wait(0)
        barrier()
        matrix, row = self.lane // 8, self.lane % 8
        own = held((self.warp * _ROWS + matrix % 2 * 8 + row) * self.key_line + matrix // 2 * 16)
        for term in range(self.width // _TERMS):
            words = [self.queries[4 * term + i] for i in range(4)]
            load_matrices(words, T.address_of(self.shared[own + term * _TERMS]))
        self._walk(values=False)
        self._walk(values=True)
        self._store(buffers[-1], v_scale)

    def _allocate(self) -> None:
        problem = self.problem
        self.keys_at = _ROWS * _WARPS * self.key_line
        self.values_at = self.keys_at + _COLUMNS * self.key_line
        room = self.values_at + _COLUMNS * self.value_line
        self.shared = T.alloc_buffer((room,), "int8", scope="shared.dyn")

        def local(count: int, dtype: str, value: float = 0) -> Any:
            buffer = T.alloc_buffer((count,), dtype, scope="local")
            for place in range(count):
                T.buffer_store(buffer, tirx.const(value, dtype), [place])
            return buffer

        self.queries = local(self.width // _TERMS * 4, "uint32")
        self.words = local(4, "uint32")
        self.dots = local(_COLUMNS // 8 * 4, "int32")
        self.scores = local(_COLUMNS // 8 * 4, "float32")
        self.largest = local(2, "float32", -math.inf)
        self.total = local(2, "float32")
        self.sums = local(problem.value_size // 8 * 4, "int32")
        self.factors = local(2, "float32")
        for half in range(2):
            row = tirx.min(self._row(half), self.rows - 1)
            scale = self.q_scales[self._place(0, row)]
            factor = scale * prim.FloatImm("float32", self.problem.scale * _LOG2E)
            T.buffer_store(self.factors, factor, [half])

    def _place(self, operand: int, token: Any) -> tuple[Any, ...]:
        """Indices of a token of the block's head, before that of an element."""
        if self.problem.heads_first[operand]:
            return (self.batch, self.head, token)
        return (self.batch, token, self.head)

    def _fetch(self, operand: int, source: Any, first: Any, end: Any, count: int, to: int) -> None:
        """Begin to copy `count` tokens of an operand; what is not there is zero."""
        size = self.problem.value_size if operand > 1 else self.problem.size
        line = self.value_line if operand > 1 else self.key_line
        pieces, threads = (line - _COPY) // _COPY, 32 * _WARPS
        with T.unroll(-(-count * pieces // threads)) as turn:
            number = turn * threads + self.thread
            token, piece = number // pieces, number % pieces * _COPY

            def one() -> None:
                there = tirx.all(first + long(token) < end, piece < size)
                # Addresses stay inside the array even where nothing is read.
                kept = tirx.min(first + long(token), end - 1)
                column = long(tirx.min(piece, size - _COPY))
                address = T.address_of(source[(*self._place(operand, kept), column)])
                copy(T.address_of(self.shared[to + token * line + piece]), address, there)

            if count * pieces % threads == 0:
                one()
            else:
                with T.If(number < count * pieces), T.Then():
                    one()

    def _walk(self, values: bool) -> None:
        """Over all keys: to find the rows' largest score and sum, or to add up the `values`."""
        with T.serial((self.columns + (_COLUMNS - 1)) // _COLUMNS) as step:
            first = held(long(step) * _COLUMNS)
            barrier()
            self._fetch(1, self.k, first, self.columns, _COLUMNS, self.keys_at)
            if values:
                self._fetch(2, self.v, first, self.columns, _COLUMNS, self.values_at)
            commit()
            wait(0)
            barrier()
            self._score(first)
            if values:
                self._sum()
            else:
                self._count()

    def _score(self, first: Any) -> None:
        """Scaled and masked scores of the block's rows and a piece's keys, as exponents of two."""
        for place in range(_COLUMNS // 8 * 4):
            T.buffer_store(self.dots, tirx.const(0, "int32"), [place])
        matrix, row = self.lane // 8, self.lane % 8
        lane = held(self.keys_at + (matrix // 2 * 8 + row) * self.key_line + matrix % 2 * 16)
        for pair in range(_COLUMNS // 16):
            for term in range(self.width // _TERMS):
                at = lane + pair * 16 * self.key_line + term * _TERMS
                load_matrices([self.words[i] for i in range(4)], T.address_of(self.shared[at]))
                left = [self.queries[4 * term + i] for i in range(4)]
                for half in range(2):
                    right = [self.words[2 * half + i] for i in range(2)]
                    place = 4 * (2 * pair + half)
                    dots = [self.dots[place + i] for i in range(4)]
                    multiply(KINDS["int8"], dots, left, right)
        for product in range(_COLUMNS // 8):
            for i in range(2):
                column = held(first + long(product * 8 + self.lane % 4 * 2 + i))
                kept = held(tirx.min(column, self.columns - 1))
                scale = held(self.k_scales[self._place(1, kept)])
                for half in range(2):
                    at = 4 * product + 2 * half + i
                    score = tirx.Cast("float32", self.dots[at]) * (self.factors[half] * scale)
                    score = self._masked(score, half, kept)
                    nothing = prim.FloatImm("float32", -math.inf)
                    T.buffer_store(
                        self.scores, tirx.Select(column < self.columns, score, nothing), [at]
                    )

    def _masked(self, score: Any, half: int, column: Any) -> Any:
        if self.problem.mask is None or self.mask is None:
            return score
        over = self.problem.mask
        row = tirx.min(self._row(half), self.rows - 1)
        added = self.mask[
            self.batch if over.batch else 0, self.head if over.heads else 0,
            row if over.rows else 0, column,
        ]  # fmt: skip
        added = tirx.max(added, prim.FloatImm("float32", _LOWEST))
        return score + added * prim.FloatImm("float32", _LOG2E)

    def _row(self, half: int) -> Any:
        """The lane's first or second row."""
        return self.first + long(self.warp * _ROWS + self.lane // 4 + 8 * half)

    def _of_row(self, half: int) -> list[Any]:
        """The lane's scores of one of its rows."""
        products = range(_COLUMNS // 8)
        return [self.scores[4 * product + 2 * half + i] for product in products for i in range(2)]

    def _count(self) -> None:
        """Keep the rows' largest score and sum of exponentials up to date."""
        for half in range(2):
            mine = self._of_row(half)
            largest = mine[0]
            for score in mine[1:]:
                largest = tirx.max(largest, score)
            new = held(tirx.max(self.largest[half], quad(tirx.max, largest)))
            total = held(self.total[half] * exp2(self.largest[half] - new))
            for score in mine:
                total = held(total + exp2(score - new))
            T.buffer_store(self.largest, new, [half])
            T.buffer_store(self.total, total, [half])

    def _codes(self, products: tuple[int, int], half: int) -> Any:
        """Codes of four exponentials of a row, in one word: two of each product's columns."""
        word = None
        for place, (product, i) in enumerate((p, i) for p in products for i in range(2)):
            score = self.scores[4 * product + 2 * half + i]
            share = exp2(score - self.largest[half]) * prim.FloatImm("float32", _REACH)
            code = tirx.Cast("uint32", tirx.Cast("int32", tirx.nearbyint(share)))
            code = code << tirx.const(8 * place, "uint32")
            word = code if word is None else word | code
        return held(word)

    def _sum(self) -> None:
        """Add the piece's values, weighted by the exponentials' codes.

        Terms stand in the order in which a lane has them: two keys of one product of scores, two of
        the next. Values are read two by two along keys (transposed pairs of bytes) and put into
        that order by permuting bytes, for values of even and of odd places apart.
        """
        matrix, row = self.lane // 8, self.lane % 8
        lane = held(self.values_at + (matrix * 8 + row) * self.value_line)
        for keys in range(_COLUMNS // _TERMS):
            products = [(4 * keys, 4 * keys + 1), (4 * keys + 2, 4 * keys + 3)]
            left = [self._codes(pair, half) for pair in products for half in range(2)]
            for piece in range(self.problem.value_size // 16):
                at = lane + keys * _TERMS * self.value_line + piece * 16
                words = [self.words[i] for i in range(4)]
                load_matrices(words, T.address_of(self.shared[at]), transposed=True)
                for odd, order in enumerate(_ORDERS):
                    right = [
                        held(_permuted(self.words[2 * i], self.words[2 * i + 1], order))
                        for i in range(2)
                    ]
                    place = 4 * (2 * piece + odd)
                    sums = [self.sums[place + i] for i in range(4)]
                    multiply(KINDS["int8"], sums, left, right)

    def _store(self, result: Any, v_scale: Any) -> None:
        """Integers become values, four neighbours at a time."""
        problem = self.problem
        shape = [*result.shape[:-1], problem.value_size // 2]
        pairs = T.decl_buffer(shape, "uint32", data=result.data)
        for half in range(2):
            total = quad(lambda a, b: a + b, self.total[half])
            share = held(v_scale[0] / (total * prim.FloatImm("float32", _REACH)))
            row = held(self._row(half))
            with T.If(row < self.rows), T.Then():
                for piece in range(problem.value_size // 16):
                    values = [
                        tirx.Cast("float32", self.sums[4 * (2 * piece + odd) + 2 * half + i])
                        * share
                        for i in range(2)
                        for odd in range(2)
                    ]
                    for i in range(2):
                        column = long(piece * 8 + self.lane % 4 * 2 + i)
                        word = pack(problem.dtype, values[2 * i], values[2 * i + 1])
                        T.buffer_store(pairs, word, [*self._place(3, row), column])


def _permuted(a: Any, b: Any, order: int) -> Any:
    return cuda_func_call(
        "fewbits_permute", a, b, tirx.const(order, "uint32"), source_code=_PERMUTE,
        return_type="uint32",
    )  # fmt: skip
