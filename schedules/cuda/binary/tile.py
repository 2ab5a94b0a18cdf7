"""Tiles of bit planes in shared memory: plane after plane, so that a product's rows are lines."""

from __future__ import annotations

from typing import Any

from tvm import tirx
from tvm.tirx.script import builder

from ..intrinsics.mma import COPY, copy
from ..mma.tile import swizzled
from ..parameters import held, long
from .encoding import words
from .problem import BinaryProduct, Window
from .sizes import Sizes

#: TVM's builder; its annotations are narrower than what it gives.
T: Any = builder

#: Words of one copy.
_WORDS = COPY // 4


class PlaneTile:
    """Rows of a packed matrix [rows, planes, words], `depth` bytes of each plane at a time.

    Line ``plane · rows + row`` of the tile holds a row's plane.
    """

    def __init__(
        self, shared: Any, source: Any, sizes: Sizes, stage_bytes: int, *, planes: int, rows: int,
        length: int, offset: int, thread: Any,
    ) -> None:  # fmt: skip
        """Compute what every step's copies need.

        Args:
            shared: the block's bytes.
            source: the matrix, as one array of words.
            sizes: of the kernel.
            stage_bytes: from a stage to the next.
            planes: of the matrix.
            rows: of the tile.
            length: words of a plane of one row.
            offset: of the tile within a stage.
            thread: the thread's number.
        """
        self.shared, self.source, self.sizes, self.stage_bytes = shared, source, sizes, stage_bytes
        self.planes, self.rows, self.length, self.offset = planes, rows, length, offset
        self.chunks = sizes.depth // COPY
        self.line = held(thread // self.chunks)
        self.chunk = held(thread % self.chunks)
        self.apart = sizes.threads // self.chunks
        self.turns = -(-rows * planes // self.apart)

    def plane_of(self, turn: int) -> Any:
        """The plane that a thread copies in a turn."""
        if self.rows % self.apart == 0:
            return turn * self.apart // self.rows
        return self.line // self.rows + turn * (self.apart // self.rows)

    def row_of(self, turn: int) -> Any:
        """The row of the tile that a thread copies in a turn."""
        if self.rows % self.apart == 0:
            return self.line + turn * self.apart % self.rows
        return self.line % self.rows

    def copy_line(self, turn: int, stage: Any, source: Any, there: Any | None) -> None:
        """Begin to copy a turn's 16 bytes of a thread from a place in the source."""
        line = self.line + turn * self.apart
        base = stage * self.stage_bytes + self.offset
        place = swizzled(line, self.chunk, self.sizes.depth)
        target = T.address_of(self.shared[base + place])
        address = T.address_of(self.source[source])
        if (turn + 1) * self.apart <= self.rows * self.planes:
            copy(target, address, there)
            return
        with T.If(line < self.rows * self.planes), T.Then():
            copy(target, address, there)


class Matrix(PlaneTile):
    """Rows that follow each other."""

    def begin(self, first: Any, end: Any) -> None:
        """The tile's first row in the matrix, and how many rows the matrix has."""
        self.there = held(
            tirx.Cast("int32", tirx.min(long(end) - first, tirx.const(self.rows, "int64")))
        )
        plane, row = self.plane_of(0), self.row_of(0)
        line = (first + long(row)) * self.planes + plane
        self.start = held(line * self.length + long(self.chunk * _WORDS))

    def copy(self, step: Any, stage: Any) -> None:
        """Begin to copy a step's words into a stage; zeros where the matrix has none."""
        per_step = self.sizes.depth // 4
        start = held(self.start + long(step * per_step))
        for turn in range(self.turns):
            if self.rows % self.apart == 0:
                row = turn * self.apart % self.rows
                further = (row * self.planes + turn * self.apart // self.rows) * self.length
            else:
                further = turn * (self.apart // self.rows) * self.length
            conditions = [self.row_of(turn) < self.there]
            if self.length % per_step:
                conditions.append(self.chunk * _WORDS + step * per_step < self.length)
            self.copy_line(turn, stage, start + further, tirx.all(*conditions))


class Patches(PlaneTile):
    """Patches of packed images [images, H, W, planes, words]: a row for each result."""

    def begin(self, problem: BinaryProduct, first: Any, end: Any) -> None:
        """The problem, the tile's first row, and how many rows there are."""
        assert problem.window is not None
        self.window: Window = problem.window
        self.channels = words(problem.inputs)
        height, width = self.window.output
        top, left, _, _ = self.window.padding
        self.pixels: list[tuple[Any, Any, Any]] = []
        known = self.turns if self.rows % self.apart == 0 else 1
        for turn in range(min(known, max(1, self.rows // self.apart))):
            row = held(first + long(self.row_of(turn)))
            # Rows that are not there look at no pixel.
            pixel = held(tirx.Cast("int32", tirx.truncmod(row, height * width)))
            down = held(pixel // width * self.window.strides[0] - top)
            down = held(tirx.if_then_else(row < end, down, -(1 << 30)))
            across = held(pixel % width * self.window.strides[1] - left)
            image = held(tirx.truncdiv(row, height * width))
            self.pixels.append((image, down, across))

    def copy(self, step: Any, stage: Any) -> None:
        """Begin to copy a step's words into a stage; zeros outside of the image."""
        window = self.window
        size, per_step = self.channels, self.sizes.depth // 4
        word = held(step * per_step + self.chunk * _WORDS)
        tap, channel = held(word // size), held(word % size)
        down = held(tap // window.kernel[1] * window.dilation[0])
        across = held(tap % window.kernel[1] * window.dilation[1])
        places = []
        for image, top, left in self.pixels:
            y, x = held(top + down), held(left + across)
            inside = [y >= 0, y < window.size[0], x >= 0, x < window.size[1]]
            if self.length % per_step:
                inside.append(word < self.length)
            there = held(tirx.Cast("int32", tirx.all(*inside)))
            pixel = (image * window.size[0] + long(y)) * window.size[1] + long(x)
            start = pixel * (self.planes * size) + long(channel)
            # An address that is not there is never read, but has to be one.
            places.append(
                (held(tirx.if_then_else(there != 0, start, tirx.const(0, "int64"))), there)
            )
        for turn in range(self.turns):
            start, there = places[turn % len(places)]
            plane = self.plane_of(turn)
            self.copy_line(turn, stage, start + plane * size, there != 0)
