"""Activations in shared memory in the order in which decoded signs meet them.

A product sums over its inputs in any order, so lanes of a quad take 32 neighbouring inputs each,
those of one word of signs, instead of the pairs that the instruction's picture gives them. What a
lane then needs of x for two products is 16 bytes in one piece. Piece v of lane q lies at unit
``4v + q`` of a token's line, every other token the halves of eight units exchanged: eight lanes
that load at a time are in different banks.
"""

from __future__ import annotations

from typing import Any

from tvm import tirx
from tvm.tirx.script import builder

from ..intrinsics.mma import COPY, copy
from ..intrinsics.registers import held
from ..parameters import Parameters, long
from ..weight_only.lanes import load_words
from .sizes import CHUNK, MatrixSizes

#: TVM's builder; its annotations are narrower than what it gives.
T: Any = builder

_VALUES = 8
_UNITS = CHUNK // _VALUES
#: Bytes of a token's chunk.
LINE = _UNITS * COPY


class Activations:
    """A block's tokens. What is beyond the matrix is zero."""

    def __init__(
        self, parameters: Parameters, sizes: MatrixSizes, shared: Any, thread: Any, first: Any
    ) -> None:
        """Where they come from and go to.

        Args:
            parameters: for x.
            sizes: of the block.
            shared: its memory, in bytes.
            thread: the thread's number.
            first: the block's first token, int64.
        """
        self.parameters, self.sizes, self.shared = parameters, sizes, shared
        self.thread, self.first = thread, first
        lane = thread % 32
        self.token, self.quad = held(lane // 4), held(lane % 4)
        #: What `finish` asks of tokens.
        self.threads, self.tokens, self.lines = sizes.threads, sizes.tokens, sizes.tokens
        self.columns, self.parts = sizes.tokens // 8, 1
        self.words = T.alloc_buffer((4 * self.columns,), "uint32", scope="local")

    def copy(self, chunk: Any, base: Any) -> None:
        """Begin to copy the chunks of a step, from number `chunk` on, to `base`."""
        count = self.sizes.along * self.sizes.tokens * _UNITS
        turns = -(-count // self.threads)
        with T.serial(turns) as turn:
            number = held(turn * self.threads + self.thread)
            if count % self.threads == 0:
                self._unit(number, chunk, base)
            else:
                with T.If(number < count), T.Then():
                    self._unit(number, chunk, base)

    def _unit(self, number: Any, chunk: Any, base: Any) -> None:
        unit, line = held(number % _UNITS), held(number // _UNITS)
        token, along = held(line % self.tokens), held(line // self.tokens)
        row = held(self.first + long(token))
        column = held((chunk + along) * CHUNK + unit * _VALUES)
        to = held(base + line * LINE + self._place(unit // 4, unit % 4, token) * COPY)
        parameters = self.parameters
        inputs, dtype = parameters.problem.inputs, parameters.problem.activation
        if inputs % _VALUES == 0:
            there = held(tirx.all(row < parameters.rows, column < inputs))
            # Nothing is read from where nothing is; the address stays inside all the same.
            row, column = tirx.Select(there, row, long(0)), tirx.Select(there, column, 0)
            source = T.address_of(parameters.x[row, long(column)])
            copy(T.address_of(self.shared[to]), source, there)
            return
        size = int(self.shared.ty.shape[0]) // 2
        view = T.decl_buffer((size,), dtype, data=self.shared.data, scope="shared.dyn")
        for value in range(_VALUES):
            T.buffer_store(view, tirx.const(0.0, dtype), [to // 2 + value])
            inside = tirx.all(row < parameters.rows, column + value < inputs)
            with T.If(inside), T.Then():
                found = parameters.x[row, long(column + value)]
                T.buffer_store(view, found, [to // 2 + value])

    def _place(self, quad: Any, piece: Any, token: Any) -> Any:
        """The unit where a lane's piece lies."""
        return (piece * 4 + quad) ^ (token % 2 * 4)

    def load(self, base: Any, piece: int) -> None:
        """A piece of all groups of eight tokens into `words`: B operands of two products."""
        for column in range(self.columns):
            line = held(self.token + 8 * column)
            place = self._place(self.quad, piece, self.token)
            at = held(base + line * LINE + place * COPY)
            target = [self.words[4 * column + word] for word in range(4)]
            load_words(target, T.address_of(self.shared[at]))
