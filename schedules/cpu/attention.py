"""Attention in one kernel: scores, softmax and the weighted sum of values, a few rows at a time.

Written operator by operator, attention moves its scores through memory four times and its heads
through a transposition each. Here the scores of a few rows stay in the first cache, exponentials
are divided by their sum only once they are summed up, and heads are read and written where they
lie. Sizes may be known at run time only.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from tvm import tirx
from tvm.tirx.script import builder

from .emit import in_lanes, simplified
from .intrinsics import broadcast, multiply_add
from .intrinsics_emit import Extent, bound, fill, flat, index, kernel, lanes_of, local, store
from .intrinsics_shuffle import across, transposed
from .vector_math import exp_below_zero

#: TVM's builder; its annotations are narrower than what it gives.
T: Any = builder

#: Rows of one task: they share the packed keys and values.
_CHUNK = 128
#: Vectors of columns (of scores or of values) whose sums are in registers together.
_VECTORS = 2


@dataclasses.dataclass(frozen=True)
class Attention:
    """``softmax(scale · q kᵀ + mask) v`` for all heads.

    Arguments: q, k, v, (mask), y, all float32. q and y have T rows, k and v have S; each of them is
    ``[N, T, heads, size]``, or ``[N, heads, T, size]`` where `heads_first` says so.

    Attributes:
        lanes: of a vector.
        registers: of the machine.
        sizes: N, T and S; None for one known only at run time.
        heads: number of heads.
        size: of a row of q and k, a multiple of `lanes`.
        value_size: of a row of v and y, a multiple of `lanes`.
        scale: what scores are multiplied by.
        mask: None, or along which of N, heads and T the mask ``[N or 1, heads or 1, T or 1, S]``
            has an element for each.
        heads_first: of q, k, v and y.
    """

    lanes: int
    registers: int
    sizes: tuple[int | None, int | None, int | None]
    heads: int
    size: int
    value_size: int
    scale: float
    mask: tuple[bool, bool, bool] | None
    heads_first: tuple[bool, bool, bool, bool]

    def build(self) -> Any:
        """The PrimFunc."""

        def write() -> Callable[[], None]:
            batch, rows, columns = bound(self.sizes)

            def argument(name: str, place: int, count: Extent, size: int) -> Any:
                pair = (self.heads, count) if self.heads_first[place] else (count, self.heads)
                return T.arg(name, T.buffer((batch, *pair, size), "float32"))

            q = argument("q", 0, rows, self.size)
            k = argument("k", 1, columns, self.size)
            v = argument("v", 2, columns, self.value_size)
            mask = None
            if self.mask is not None:
                full = (batch, index(self.heads), rows)
                shape = [n if wide else 1 for n, wide in zip(full, self.mask, strict=True)]
                mask = T.arg("mask", T.buffer((*shape, columns), "float32"))
            y = argument("y", 3, rows, self.value_size)
            return lambda: self._tasks(batch, rows, columns, q, k, v, mask, y)

        return kernel("attention", write)

    def _tasks(
        self, batch: Any, rows: Any, columns: Any, q: Any, k: Any, v: Any, mask: Any, y: Any
    ) -> None:
        keys, values = batch * columns * self.heads, batch * rows * self.heads
        chunks = simplified((rows + (_CHUNK - 1)) // _CHUNK)
        tasks = simplified(batch * self.heads * chunks)
        operands = (
            flat(q, simplified(values * self.size)),
            flat(k, simplified(keys * self.size)),
            flat(v, simplified(keys * self.value_size)),
            flat(y, simplified(values * self.value_size)),
        )
        if mask is not None:
            count: Any = columns
            for extent in list(mask.shape)[:-1]:
                count = count * extent
            mask = flat(mask, simplified(count))
        with T.parallel(index(0), tasks) as number:
            start = T.Bind(number % chunks * _CHUNK)
            head = T.Bind(number // chunks % self.heads)
            sample = T.Bind(number // chunks // self.heads)
            _Task(self, rows, columns, operands, mask, sample, head).emit(start)


@dataclasses.dataclass(frozen=True)
class _Task:
    """Some rows of one head of one sample."""

    kernel: Attention
    rows: Any
    columns: Any
    operands: tuple[Any, Any, Any, Any]
    mask: Any
    sample: Any
    head: Any

    @property
    def panel(self) -> int:
        """Columns of a panel of keys."""
        return _VECTORS * self.kernel.lanes

    @property
    def padded(self) -> Any:
        """Columns in whole panels."""
        return simplified((self.columns + (self.panel - 1)) // self.panel * self.panel)

    def emit(self, start: Any) -> None:
        """Compute the rows from `start` on."""
        height = 8 if self.kernel.registers >= 32 else 4
        keys, values = self._packed_keys(), self._packed_values()
        lines = height if self._mask_has_rows else 1
        bias = T.alloc_buffer((simplified(lines * self.padded),), "float32", layout=None)
        self._fill_tail(bias, lines)
        if not self._mask_has_rows:
            self._fill_bias(bias, index(0), index(0))
        scores = T.alloc_buffer((simplified(height * self.padded),), "float32", layout=None)
        count = T.Bind(tirx.min(self.rows - start, index(_CHUNK)))

        def tile(row: Any, high: int) -> None:
            if self._mask_has_rows:
                with T.serial(index(0), index(high)) as i:
                    self._fill_bias(bias, i, row + i)
            self._scores(scores, keys, bias, row, high)
            inverse = T.alloc_buffer((height,), "float32", layout=None)
            with T.serial(index(0), index(high)) as i:
                self._softmax(scores, i, inverse)
            self._sums(scores, values, inverse, row, high)

        with T.If(count >= height):
            with T.Then(), T.serial(index(0), (count + (height - 1)) // height) as i:
                # The last tile overlaps the one before: the same results, written twice.
                tile(T.Bind(start + tirx.min(i * height, count - height)), height)
            with T.Else(), T.serial(index(0), count) as i:
                tile(T.Bind(start + i), 1)

    @property
    def _mask_has_rows(self) -> bool:
        return self.kernel.mask is not None and self.kernel.mask[2]

    def _place(self, operand: int, row: Any) -> Any:
        """Where a row of this head begins in an operand."""
        count = self.rows if operand in (0, 3) else self.columns
        size = self.kernel.size if operand < 2 else self.kernel.value_size
        heads, sample = self.kernel.heads, self.sample
        if self.kernel.heads_first[operand]:
            return ((sample * heads + self.head) * count + row) * size
        return ((sample * count + row) * heads + self.head) * size

    def _packed_keys(self) -> Any:
        """The keys as [panels, size, columns of a panel]; what pads the last panel is finite."""
        lanes, size = self.kernel.lanes, self.kernel.size
        keys, source = self._scratch(size), self.operands[1]
        with T.serial(index(0), simplified(self.padded // lanes)) as block:
            base = T.Bind(block // _VECTORS * (size * self.panel) + block % _VECTORS * lanes)
            places = [
                T.Bind(self._place(1, tirx.min(block * lanes + i, self.columns - 1)))
                for i in range(lanes)
            ]
            for first in range(0, size, lanes):
                square = [T.Bind(lanes_of(source, lanes, place + first)) for place in places]
                for i, column in enumerate(transposed(square)):
                    store(keys, lanes, column, base + (first + i) * self.panel)
        return keys

    def _packed_values(self) -> Any:
        """The values as [S, value_size]: far apart they would be in each other's way in caches."""
        lanes, size = self.kernel.lanes, self.kernel.value_size
        values = self._scratch(size)
        with T.serial(index(0), self.columns) as row:
            place = T.Bind(self._place(2, row))
            for first in range(0, size, lanes):
                part = lanes_of(self.operands[2], lanes, place + first)
                store(values, lanes, part, row * size + first)
        return values

    def _scratch(self, size: int) -> Any:
        return T.alloc_buffer((simplified(self.padded * size),), "float32", layout=None)

    def _fill_tail(self, bias: Any, lines: int) -> None:
        """Columns that only pad get no weight."""
        nothing = tirx.reinterpret("float32", tirx.const(-0x800000, "int32"))
        with T.serial(index(0), index(lines)) as i, T.serial(self.columns, self.padded) as column:
            T.buffer_store(bias, nothing, [i * self.padded + column])

    def _fill_bias(self, bias: Any, line: Any, row: Any) -> None:
        """What is added to the scores of a row."""
        place: Any = index(0)
        if self.kernel.mask is not None:
            full = ((self.sample, None), (self.head, self.kernel.heads), (row, self.rows))
            for (position, extent), wide in zip(full, self.kernel.mask, strict=True):
                if wide:
                    place = position if extent is None else place * extent + position

        def element(column: Any) -> None:
            value: Any = tirx.const(0.0, "float32")
            if self.mask is not None:
                value = self.mask[place * self.columns + column]
            T.buffer_store(bias, value, [line * self.padded + column])

        in_lanes(self.columns, self.kernel.lanes, element)

    def _scores(self, scores: Any, keys: Any, bias: Any, row: Any, high: int) -> None:
        lanes, size = self.kernel.lanes, self.kernel.size
        q = self.operands[0]
        bases = [T.Bind(self._place(0, row + i)) for i in range(high)]
        scale = broadcast(tirx.const(self.kernel.scale, "float32"), lanes)
        with T.serial(index(0), simplified(self.padded // self.panel)) as panel:
            start = T.Bind(panel * (size * self.panel))
            sums = self._cleared(high)
            with T.serial(index(0), index(size)) as d:
                right = [
                    T.Bind(lanes_of(keys, lanes, start + d * self.panel + v * lanes))
                    for v in range(_VECTORS)
                ]
                for base, line in zip(bases, sums, strict=True):
                    self._accumulate(line, q[base + d], right)
            for i, line in enumerate(sums):
                for v, one in enumerate(line):
                    column = panel * self.panel + v * lanes
                    own = index(i) * self.padded if self._mask_has_rows else index(0)
                    added = lanes_of(bias, lanes, own + column)
                    value = multiply_add(lanes_of(one, lanes), scale, added, lanes)
                    store(scores, lanes, value, index(i) * self.padded + column)

    def _softmax(self, scores: Any, line: Any, inverse: Any) -> None:
        """Exponentials in place of a row's scores, and the inverse of their sum."""
        lanes = self.kernel.lanes
        start = T.Bind(line * self.padded)
        vectors = simplified(self.padded // self.panel)
        best = [local(lanes, "float32") for _ in range(_VECTORS)]
        totals = [local(lanes, "float32") for _ in range(_VECTORS)]
        for one in best:
            store(one, lanes, lanes_of(scores, lanes, start))
        for one in totals:
            fill(one, lanes, 0.0)
        with T.serial(index(0), vectors) as i:
            for v, one in enumerate(best):
                value = lanes_of(scores, lanes, start + i * self.panel + v * lanes)
                store(one, lanes, tirx.max(lanes_of(one, lanes), value))
        both = T.Bind(tirx.max(*(lanes_of(one, lanes) for one in best)))
        largest = T.Bind(broadcast(across(both, tirx.max), lanes))
        with T.serial(index(0), vectors) as i:
            for v, one in enumerate(totals):
                place = start + i * self.panel + v * lanes
                value = T.Bind(exp_below_zero(lanes_of(scores, lanes, place) - largest))
                store(scores, lanes, value, place)
                store(one, lanes, lanes_of(one, lanes) + value)
        first, second = (lanes_of(one, lanes) for one in totals)
        total = across(T.Bind(first + second), lambda a, b: a + b)
        T.buffer_store(inverse, tirx.const(1.0, "float32") / total, [line])

    def _sums(self, scores: Any, values: Any, inverse: Any, row: Any, high: int) -> None:
        lanes, size = self.kernel.lanes, self.kernel.value_size
        y = self.operands[3]
        for first in range(0, size, self.panel):
            count = min(_VECTORS, (size - first) // lanes)
            sums = self._cleared(high, count)
            with T.serial(index(0), self.columns) as column:
                right = [
                    T.Bind(lanes_of(values, lanes, column * size + first + v * lanes))
                    for v in range(count)
                ]
                for i, line in enumerate(sums):
                    self._accumulate(line, scores[index(i) * self.padded + column], right)
            for i, line in enumerate(sums):
                by = T.Bind(broadcast(inverse[i], lanes))
                place = T.Bind(self._place(3, row + i) + first)
                for v, one in enumerate(line):
                    store(y, lanes, lanes_of(one, lanes) * by, place + v * lanes)

    def _cleared(self, high: int, vectors: int = _VECTORS) -> list[list[Any]]:
        lanes = self.kernel.lanes
        sums = [[local(lanes, "float32") for _ in range(vectors)] for _ in range(high)]
        for line in sums:
            for one in line:
                fill(one, lanes, 0.0)
        return sums

    def _accumulate(self, sums: list[Any], element: Any, right: list[Any]) -> None:
        lanes = self.kernel.lanes
        left = T.Bind(broadcast(element, lanes))
        for one, vector in zip(sums, right, strict=True):
            store(one, lanes, multiply_add(left, vector, lanes_of(one, lanes), lanes))
