"""``y = x @ w.T`` with float x and weights of few bits, decoded between their load and their use.

One row of x (a token at a time) is bound by the weights' bandwidth: codes are decoded in registers
and multiplied at once, a group's sum is scaled at its end. Many rows decode a block of the panel,
at most `block` values of the sum long, into a tile in the first-level cache, scaled, and all rows
of a chunk pass over it; the tile is the only place where weights are ever larger than stored.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

from tvm import tirx
from tvm.tirx.script import builder as T

from .intrinsics import broadcast, multiply_add
from .intrinsics_emit import (
    Extent,
    bound,
    constant,
    fill,
    flat,
    index,
    kernel,
    lanes_of,
    local,
    product,
    store,
)
from .intrinsics_epilogue import PLAIN, Epilogue, Output
from .intrinsics_lookup import Lookup
from .weight_only_decode import Decoder
from .weight_only_lookup import LOOKED_UP, look_up
from .weight_only_scales import GroupScales
from .weight_only_walk import WeightStream

#: Values of the sum in a decoded tile, about.
_BLOCK = 128
#: Rows that share a decoded tile.
_CHUNK = 64
#: Sums of one row that are kept apart, so that additions need not wait for each other.
_CHAINS = 2


@dataclasses.dataclass(frozen=True)
class WeightOnlyLinear:
    """``x [..., K], words, (table), scales ..., (bias), (addend) -> y [..., N]``.

    Attributes:
        lanes: float32 in a vector; outputs in a panel.
        leading: sizes of x before the last; None where one is known only at run time.
        length: K.
        outputs: N.
        group: values of the sum that share a scale; at least K: all.
        decoder: the format.
        scales: the groups' scales and zero points.
        epilogue: what is done to the product before it is stored.
        tile: rows and panels of a register tile.
        lookup: of binary planes whose signs few rows look up in tables of sums; None: they decode.
    """

    lanes: int
    leading: tuple[int | None, ...]
    length: int
    outputs: int
    group: int
    decoder: Decoder
    scales: GroupScales
    epilogue: Epilogue = PLAIN
    tile: tuple[int, int] = (8, 3)
    lookup: Lookup | None = None

    @property
    def panels(self) -> int:
        """Vectors that hold all outputs."""
        return -(-self.outputs // self.lanes)

    @property
    def block(self) -> int:
        """Values of the sum in a tile: whole chunks, and groups or a part of one."""
        if self.group >= self.length:
            return _BLOCK
        unit = math.lcm(self.group, self.decoder.chunk)
        if unit <= _BLOCK:
            return _BLOCK // unit * unit
        return math.gcd(self.group, _BLOCK) if self.group % self.decoder.chunk == 0 else unit

    def build(self) -> Any:
        """The PrimFunc."""

        def write() -> Callable[[], None]:
            sizes = bound(self.leading)
            rows = product(sizes)
            x = T.arg("x", T.buffer((*sizes, index(self.length)), "float32"))
            words = T.buffer(
                (self.panels, self.decoder.words(self.length), self.lanes), self.decoder.dtype
            )
            words = T.arg("words", words)
            entries = self.decoder.entries
            table = T.arg("table", T.buffer((entries,), "float32")) if entries else None
            arguments = self.scales.declare(self.panels, self.lanes)
            output = Output.declare(self.epilogue, sizes, self.outputs, self.lanes)

            def body() -> None:
                output.open()
                values = flat(x, product([rows, index(self.length)]))
                weights = WeightStream(
                    self.lanes, self.length, self.group, self.decoder, self.scales,
                    words, table, arguments,
                )  # fmt: skip
                few = LOOKED_UP if self.lookup is not None else (1,)

                def some(count: int) -> None:
                    if self.lookup is None:
                        _vector(self, weights, values, output)
                    else:
                        look_up(self, self.lookup, weights, values, count, output)

                def branch(counts: tuple[int, ...]) -> None:
                    if not counts:
                        _matrix(self, weights, values, rows, output)
                        return
                    with T.If(rows == counts[0]):
                        with T.Then():
                            some(counts[0])
                        with T.Else():
                            branch(counts[1:])

                known = constant(rows)
                if known is not None and known in few:
                    some(known)
                elif known is not None:
                    _matrix(self, weights, values, rows, output)
                else:
                    branch(few)

            return body

        return kernel("weight_only_linear", write)


def _vector(plan: WeightOnlyLinear, weights: WeightStream, x: Any, output: Output) -> None:
    """One row: decode, multiply, add; a group's sums are scaled at its end."""
    lanes, width = plan.lanes, min(plan.tile[1] + 1, plan.panels)
    full, rest = divmod(plan.panels, width)
    scaled = plan.scales.storage != "none" and plan.scales.planes == 1 and not plan.scales.offset

    def work(first: Any, count: int) -> None:
        panels = [T.Bind(first + i) for i in range(count)]
        sums = [[local(lanes, "float32") for _ in range(_CHAINS)] for _ in panels]
        totals = [local(lanes, "float32") for _ in panels] if scaled else []
        for one in [*(s for chains in sums for s in chains), *totals]:
            fill(one, lanes, 0.0)

        def use(number: int, place: Any, code: int, value: Any, group: Any) -> None:
            del group
            one = sums[number][code % _CHAINS]
            by = broadcast(x[place], lanes)
            store(one, lanes, multiply_add(by, value, lanes_of(one, lanes), lanes))

        def close(opened: list[Any]) -> None:
            if not scaled:
                return
            for number, group in enumerate(opened):
                part = _sum(sums[number], lanes)
                total = totals[number]
                store(total, lanes, multiply_add(part, group.scale, lanes_of(total, lanes), lanes))
                for one in sums[number]:
                    fill(one, lanes, 0.0)

        weights.walk(panels, index(0), index(0), plan.length, use, close)
        for number, panel in enumerate(panels):
            value = lanes_of(totals[number], lanes) if scaled else _sum(sums[number], lanes)
            output.write(index(0), panel * lanes, value)

    with T.parallel(index(0), index(full + (rest > 0))) as unit:
        _either(rest, unit, full, width, work)


def _either(rest: int, unit: Any, full: int, width: int, work: Callable[[Any, int], None]) -> None:
    """The `unit`-th of `full` groups of `width` panels, or the group of the `rest`."""
    if not rest:
        work(T.Bind(unit * width), width)
        return
    with T.If(unit < full):
        with T.Then():
            work(T.Bind(unit * width), width)
        with T.Else():
            work(index(full * width), rest)


def _sum(parts: list[Any], lanes: int) -> Any:
    total = lanes_of(parts[0], lanes)
    for part in parts[1:]:
        total = total + lanes_of(part, lanes)
    return total


def _matrix(
    plan: WeightOnlyLinear, weights: WeightStream, x: Any, rows: Extent, output: Output
) -> None:
    """Many rows: a block of the panels is decoded into a tile, and all rows pass over it."""
    width = min(plan.tile[1], plan.panels)
    full, rest = divmod(plan.panels, width)
    known = constant(rows)
    chunks = index(-(-known // _CHUNK)) if known is not None else (rows + (_CHUNK - 1)) // _CHUNK

    with T.parallel(index(0), product([chunks, index(full + (rest > 0))])) as unit:
        start = T.Bind((unit % chunks) * _CHUNK)
        count = T.Bind(tirx.min(index(_CHUNK), rows - start))
        tile = _Tile(plan, weights, x, start, count)
        _either(rest, T.Bind(unit // chunks), full, width, lambda p, n: tile.work(p, n, output))


@dataclasses.dataclass(frozen=True)
class _Tile:
    """A chunk of rows times a few panels."""

    plan: WeightOnlyLinear
    weights: WeightStream
    x: Any
    start: Any
    count: Any

    def work(self, first: Any, width: int, output: Output) -> None:
        """Compute and store it."""
        plan = self.plan
        lanes, block = plan.lanes, min(plan.block, plan.length)
        panels = [T.Bind(first + i) for i in range(width)]
        decoded = T.alloc_buffer((block * width * lanes,), "float32", layout=None)
        sums = T.alloc_buffer((_CHUNK * width * lanes,), "float32", layout=None)
        blocks, rest = divmod(plan.length, block)
        with T.serial(index(0), self.count * width) as i:
            store(sums, lanes, broadcast(tirx.const(0.0, "float32"), lanes), i * lanes)

        def part(number: Any, length: int) -> None:
            begin = T.Bind(number * block)
            self._decode(panels, begin, length, decoded)
            self._multiply(begin, length, width, decoded, sums)

        if blocks:
            with T.serial(index(0), index(blocks)) as number:
                part(number, block)
        if rest:
            part(index(blocks), rest)
        with T.serial(index(0), self.count) as number_of_row:
            row: Any = number_of_row
            for number, panel in enumerate(panels):
                value = lanes_of(sums, lanes, (row * width + number) * lanes)
                output.write(self.start + row, panel * lanes, value)

    def _decode(self, panels: list[Any], begin: Any, length: int, decoded: Any) -> None:
        plan = self.plan
        lanes, width = plan.lanes, len(panels)
        group = index(0) if plan.group >= plan.length else begin // plan.group

        def use(number: int, place: Any, code: int, value: Any, opened: Any) -> None:
            del code
            scaled = value if opened.scale is None else value * opened.scale
            store(decoded, lanes, scaled, ((place - begin) * width + number) * lanes)

        self.weights.walk(panels, begin, group, length, use, lambda opened: None)

    def _multiply(self, begin: Any, length: int, width: int, decoded: Any, sums: Any) -> None:
        plan = self.plan
        lanes, height = plan.lanes, plan.tile[0]

        def some(row: Any, rows: int) -> None:
            mine = [local(lanes, "float32") for _ in range(rows * width)]
            for i, one in enumerate(mine):
                store(one, lanes, lanes_of(sums, lanes, (row * width + i) * lanes))
            with T.serial(index(0), index(length)) as step:
                k: Any = step
                weights = [
                    T.Bind(lanes_of(decoded, lanes, (k * width + j) * lanes)) for j in range(width)
                ]
                for i in range(rows):
                    place = (self.start + row + i) * plan.length + begin + k
                    by = broadcast(self.x[place], lanes)
                    for j, weight in enumerate(weights):
                        one = mine[i * width + j]
                        store(one, lanes, multiply_add(by, weight, lanes_of(one, lanes), lanes))
            for i, one in enumerate(mine):
                store(sums, lanes, lanes_of(one, lanes), (row * width + i) * lanes)

        with T.serial(index(0), self.count // height) as i:
            some(T.Bind(i * height), height)
        with T.serial(index(0), self.count % height) as i:
            some(T.Bind(self.count - self.count % height + i), 1)
