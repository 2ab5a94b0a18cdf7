"""Activations in shared memory: the tokens of a block, chunk by chunk, swizzled for ``ldmatrix``.

A line is 64 inputs of a token: 128 bytes, eight units of 16. Unit `u` of line `l` lies at
``u ^ (l % 8)``, so the eight lines that ``ldmatrix`` reads at a time are in different banks.

A float32 token takes three lines: the bfloat16 nearest to each value, the one nearest to what is
left, and the one nearest to the rest of that. They are columns of one product, whose sums are
added up: 24 bits of mantissa in all, as float32 has.
"""

from __future__ import annotations

from typing import Any

from tvm import tirx
from tvm.backend.cuda.op import cuda_func_call
from tvm.tirx.script import builder

from ..intrinsics.mma import COPY, copy, load_matrices
from ..parameters import Parameters, held, long
from .planes import CHUNK

#: TVM's builder; its annotations are narrower than what it gives.
T: Any = builder

_UNITS, _VALUES = 8, 8
#: Bytes of a line.
LINE = _UNITS * COPY


def parts(activation: str) -> int:
    """Lines that a token takes."""
    return 3 if activation == "float32" else 1


class Tokens:
    """A block's activations. What is beyond the matrix is zero."""

    def __init__(
        self,
        parameters: Parameters,
        tokens: int,
        shared: Any,
        thread: Any,
        threads: int,
        first: Any,
    ) -> None:
        """Where they come from and go to.

        Args:
            parameters: for x.
            tokens: of the block.
            shared: its memory, in bytes.
            thread: the thread's number.
            threads: of the block.
            first: the block's first token, int64.
        """
        self.parameters, self.tokens, self.shared = parameters, tokens, shared
        self.thread, self.threads, self.first = thread, threads, first
        self.activation, self.inputs = parameters.problem.activation, parameters.problem.inputs
        self.parts = parts(self.activation)
        self.lines = tokens * self.parts
        #: Groups of eight lines, the N of an instruction.
        self.columns = -(-self.lines // 8)
        self.words = T.alloc_buffer((8 * self.columns,), "uint32", scope="local")
        # Lane l points ldmatrix to line l % 8 of matrix l // 8; matrices go along the inputs.
        lane = thread % 32
        self.unit = held(lane // 8)
        self.line = [
            held(tirx.min(lane % 8 + 8 * column, self.lines - 1)) for column in range(self.columns)
        ]

    def copy(self, chunk: Any, chunks: int, base: Any) -> None:
        """Begin to copy `chunks` chunks of all tokens, from number `chunk` on, to `base`."""
        count = chunks * self.tokens * _UNITS
        turns = -(-count // self.threads)

        def one(turn: Any, whole: bool) -> None:
            number = held(self.thread + turn * self.threads)
            if whole:
                self._unit(number, chunk, base)
                return
            with T.If(number < count), T.Then():
                self._unit(number, chunk, base)

        if turns > 8:
            with T.serial(turns) as turn:
                one(turn, count % self.threads == 0)
            return
        for turn in range(turns):
            one(turn, (turn + 1) * self.threads <= count)

    def _unit(self, number: Any, chunk: Any, base: Any) -> None:
        """Eight values of one token."""
        unit, token = held(number % _UNITS), held(number // _UNITS % self.tokens)
        along = held(number // (_UNITS * self.tokens))
        row = held(self.first + long(token))
        column = held((chunk + along) * CHUNK + unit * _VALUES)
        line = held(token * self.parts)
        start = held(base + (along * self.lines + line) * LINE)
        if self.parts > 1:
            self._split(row, column, start, line, unit)
            return
        place = held(start + (unit ^ (line % 8)) * COPY)
        if self.inputs % _VALUES == 0:
            there = held(tirx.all(row < self.parameters.rows, column < self.inputs))
            # Nothing is read from where nothing is; the address stays inside all the same.
            row, column = tirx.Select(there, row, long(0)), tirx.Select(there, column, 0)
            source = T.address_of(self.parameters.x[row, long(column)])
            copy(T.address_of(self.shared[place]), source, there)
            return
        size = int(self.shared.ty.shape[0]) // 2
        view = T.decl_buffer((size,), self.activation, data=self.shared.data, scope="shared.dyn")
        place = held(place // 2)
        for value in range(_VALUES):
            T.buffer_store(view, tirx.const(0.0, self.activation), [place + value])
            inside = tirx.all(row < self.parameters.rows, column + value < self.inputs)
            with T.If(inside), T.Then():
                found = self.parameters.x[row, long(column + value)]
                T.buffer_store(view, found, [place + value])

    def _split(self, row: Any, column: Any, start: Any, line: Any, unit: Any) -> None:
        """Store float32 values as three lines of bfloat16."""
        values = T.alloc_buffer((_VALUES,), "float32", scope="local")
        for value in range(_VALUES):
            T.buffer_store(values, tirx.const(0.0, "float32"), [value])
            inside = tirx.all(row < self.parameters.rows, column + value < self.inputs)
            with T.If(inside), T.Then():
                T.buffer_store(values, self.parameters.x[row, long(column + value)], [value])
        places = [
            T.address_of(self.shared[start + part * LINE + (unit ^ ((line + part) % 8)) * COPY])
            for part in range(self.parts)
        ]
        T.evaluate(
            cuda_func_call(
                "fewbits_split", *[values[v] for v in range(_VALUES)], *places, source_code=_SPLIT
            )
        )

    def fragment(self, place: Any, tile: int) -> list[Any]:
        """The B operands of a tile of inputs: two words for each group of eight lines.

        Args:
            place: of the chunk.
            tile: which of its four; even ones come before odd ones, which are read with them.
        """
        words = self.words
        found = []
        for column, line in enumerate(self.line):
            first = 4 * (self.columns * (tile // 2) + column)
            if tile % 2 == 0:
                unit = (self.unit + 2 * tile) ^ (line % 8)
                address = place + line * LINE + unit * COPY
                load_matrices(
                    [words[first + w] for w in range(4)], T.address_of(self.shared[address])
                )
            found += [words[first + 2 * (tile % 2) + w] for w in range(2)]
        return found


_SPLIT = """
__device__ __forceinline__ void fewbits_split(
    float a, float b, float c, float d, float e, float f, float g, float h,
    void* first, void* second, void* third) {
  float v[8] = {a, b, c, d, e, f, g, h};
  void* places[3] = {first, second, third};
#pragma unroll
  for (int part = 0; part < 3; ++part) {
    unsigned w[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(w[i]) : "f"(v[2 * i + 1]), "f"(v[2 * i]));
      v[2 * i] -= __uint_as_float(w[i] << 16);
      v[2 * i + 1] -= __uint_as_float(w[i] & 0xffff0000u);
    }
    *(uint4*)places[part] = make_uint4(w[0], w[1], w[2], w[3]);
  }
}
"""
