"""Rows of activations in int8, packed for the dot products that read them.

One kernel per quantized value: layers that share an input (query, key and value) share its codes.
The codes are those of ``fewbits.fake_quantize`` to the bit: the scale is the largest magnitude
divided by the format's reach, the code the quotient rounded half to even.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, Literal

from tvm import tirx
from tvm.tirx.script import builder

from .intrinsics import DotProduct, broadcast, pure_call, vector
from .intrinsics_emit import (
    Extent,
    bound,
    fill,
    flat,
    index,
    kernel,
    lanes_of,
    local,
    product,
    ramp,
    store,
)

#: TVM's builder; its annotations are narrower than what it gives.
T: Any = builder

ScaleKind = Literal["token", "tensor", "static"]
_SMALLEST = 2.0**-126
#: Maxima that are kept apart, so that comparisons need not wait for each other.
_CHAINS = 4


@dataclasses.dataclass(frozen=True)
class _Row:
    """Values from a place on, times factors if there are any."""

    values: Any
    factors: Any
    start: Any

    def vector(self, lanes: int, first: Any) -> Any:
        """Neighbours."""
        value = lanes_of(self.values, lanes, self.start + first)
        return value if self.factors is None else value * lanes_of(self.factors, lanes, first)

    def element(self, place: Any) -> Any:
        """One value."""
        value = self.values[self.start + place]
        return value if self.factors is None else value * self.factors[place]


@dataclasses.dataclass(frozen=True)
class QuantizeRows:
    """``x [..., K] float32 -> words [M, W] int32, scales`` with M the product of leading sizes.

    Attributes:
        dot: who reads the words.
        leading: sizes of x before the last; None where one is known only at run time.
        length: K.
        minimum, maximum: of the codes.
        reach: the largest magnitude's quotient; see `NumberFormat.reach`.
        scale: ``token``: output scales [M]. ``tensor``: output [1]. ``static``: the argument
            after x (and its factors), [1], and no output.
        factors: whether x is multiplied by a vector [K], the second argument, before; not for a
            scale of the whole tensor.
    """

    dot: DotProduct
    leading: tuple[int | None, ...]
    length: int
    minimum: int
    maximum: int
    reach: float
    scale: ScaleKind
    factors: bool = False

    @property
    def words(self) -> int:
        """W."""
        return self.dot.word_count(self.length)

    def build(self) -> Any:
        """The PrimFunc: x, (factors,) (scale,) words, (scales)."""

        def write() -> Callable[[], None]:
            sizes = bound(self.leading)
            rows = product(sizes)
            x = T.arg("x", T.buffer((*sizes, self.length), "float32"))
            factors = (
                T.arg("factors", T.buffer((self.length,), "float32")) if self.factors else None
            )
            static = T.arg("scale", T.buffer((1,), "float32")) if self.scale == "static" else None
            words = T.arg("words", T.buffer((rows, self.words), "int32"))
            scales = static
            if self.scale != "static":
                count = rows if self.scale == "token" else 1
                scales = T.arg("scales", T.buffer((count,), "float32"))
            return lambda: self._body(x, factors, words, scales, rows)

        return kernel("quantize_rows", write)

    def _body(self, x: Any, factors: Any, words: Any, scales: Any, rows: Extent) -> None:
        length = index(self.length)
        count = product([rows, length])
        values = flat(x, count)
        if self.scale == "tensor":
            self._largest(_Row(values, None, index(0)), count, scales, 0)
        with T.parallel(index(0), rows) as number:
            row = _Row(values, factors, T.Bind(number * length))
            if self.scale == "token":
                self._largest(row, length, scales, number)
            self._round(row, number, scales[number if self.scale == "token" else 0], words)

    def _largest(self, row: _Row, count: Extent, scales: Any, at: Any) -> None:
        """Store the scale of the first `count` values of a row."""
        lanes, width = self.dot.lanes, _CHAINS * self.dot.lanes
        largest = local(width, "float32")
        fill(largest, width, 0.0)
        wide, narrow = count // width, count // lanes
        with T.serial(index(0), wide) as i:
            for chain in range(_CHAINS):
                part = tirx.abs(row.vector(lanes, i * width + chain * lanes))
                so_far = lanes_of(largest, lanes, chain * lanes)
                store(largest, lanes, tirx.max(so_far, part), chain * lanes)
        with T.serial(wide * _CHAINS, narrow) as i:
            part = tirx.abs(row.vector(lanes, i * lanes))
            store(largest, lanes, tirx.max(lanes_of(largest, lanes), part))
        with T.serial(narrow * lanes, count) as i:
            T.buffer_store(largest, tirx.max(largest[0], tirx.abs(row.element(i))), [0])
        while width > 1:
            width //= 2
            upper = lanes_of(largest, width, width)
            store(largest, width, tirx.max(lanes_of(largest, width), upper))
        scale = largest[0] / tirx.const(self.reach, "float32")
        T.buffer_store(scales, tirx.max(scale, tirx.const(_SMALLEST, "float32")), [at])

    def _round(self, row: _Row, number: Any, scale: Any, words: Any) -> None:
        """Store the words of a row; what lies behind its end becomes zeros."""
        lanes = self.dot.lanes
        step = T.Bind(scale)
        whole, rest = divmod(self.length, lanes)

        def put(part: Any, place: Any) -> None:
            packed = self._packed(part, step)
            width = lanes // self.dot.values
            T.buffer_store(words, packed, [number, ramp(place * width, width)])

        with T.serial(index(0), index(whole)) as i:
            put(row.vector(lanes, i * lanes), i)
        if rest:
            tail = local(lanes, "float32")
            fill(tail, lanes, 0.0)
            with T.serial(index(0), index(rest)) as i:
                T.buffer_store(tail, row.element(whole * lanes + i), [i])
            put(lanes_of(tail, lanes), index(whole))

    def _packed(self, part: Any, step: Any) -> Any:
        """The words of one vector of values."""
        dot = self.dot
        real, whole = vector("float32", dot.lanes), vector("int32", dot.lanes)
        steps = pure_call(real, "llvm.rint", part / broadcast(step, dot.lanes))
        low, high = (
            broadcast(tirx.const(float(limit), "float32"), dot.lanes)
            for limit in (self.minimum, self.maximum)
        )
        # Clamped as floats: what overflows int32 must saturate.
        codes = tirx.Cast(whole, tirx.max(tirx.min(steps, high), low))
        if dot.offset:
            codes = codes + broadcast(tirx.const(dot.offset, "int32"), dot.lanes)
        return dot.pack_activations(codes)
