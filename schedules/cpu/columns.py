"""Neighbouring columns of a product's right operand, as fast as their places in memory allow.

The columns of a matrix are neighbours in memory. The columns of a convolution are pixels: in runs
as long as an image's row, and with a stride apart.
"""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Callable
from typing import Any

from tvm import tirx
from tvm.ir import prim
from tvm.tirx.script import builder as T

from ..stages.program import constant, substitute
from .emit import at, fused, in_lanes, index, serial, simplified, vectorized
from .product import Product

Put = Callable[[Any, Any], None]


class Columns(abc.ABC):
    """Where some columns of the right operand begin."""

    @abc.abstractmethod
    def copy(self, buffer: Any, along: Any, put: Put) -> None:
        """Emit ``put(lane, element)`` for all lanes, `along` elements from each column's place."""


def columns_of(
    product: Product, outer: dict[Any, Any], first: Any, width: int, lanes: int
) -> Columns:
    """The `width` columns from `first` on; those beyond the last may have any values.

    Args:
        product: whose right operand it is.
        outer: the values of the outer axes.
        first: number of the first column, a multiple of `width`.
        width: how many, a multiple of `lanes`.
        lanes: elements of a vector.
    """

    def place(number: Any) -> Any:
        own = fused(product.columns, number)
        return simplified(substitute(product.right.place, {**outer, **own}))

    count = product.count(product.columns)
    n = tirx.Var("n", "int64")
    following = simplified(place(n + 1) - place(n))
    if isinstance(following, prim.IntImm):
        start = T.Bind(place(first))
        available = T.Bind(tirx.min(count - first, index(width)))
        return _Even(start, int(following.value), available, width, lanes)
    fast = product.columns[-1]
    extent = constant(fast.extent)
    if extent is not None and extent % lanes == 0:
        moved = substitute(product.right.place, {fast.var: fast.var + 1})
        stride = simplified(moved - product.right.place)
        if isinstance(stride, prim.IntImm):
            starts = tuple(
                T.Bind(place(tirx.min(first + start, count - lanes)))
                for start in range(0, width, lanes)
            )
            return _Runs(starts, int(stride.value), lanes)
    table = T.alloc_buffer((width,), "int64", layout=None)
    with serial(index(0), index(width)) as lane:
        T.buffer_store(table, place(tirx.min(first + lane, count - 1)), [lane])
    return _Anywhere(table, width)


@dataclasses.dataclass(frozen=True)
class _Even(Columns):
    """All the same distance apart."""

    start: Any
    stride: int
    available: Any
    width: int
    lanes: int

    def copy(self, buffer: Any, along: Any, put: Put) -> None:
        def element(lane: Any) -> None:
            put(lane, at(buffer, self.start + along + lane * self.stride))

        with T.If(self.available == self.width):
            with T.Then():
                in_lanes(index(self.width), self.lanes, element)
            with T.Else():
                with serial(index(0), self.available) as lane:
                    element(lane)
                with serial(self.available, index(self.width)) as lane:
                    put(lane, tirx.const(0.0, "float32"))


@dataclasses.dataclass(frozen=True)
class _Runs(Columns):
    """Vectors whose elements are the same distance apart."""

    starts: tuple[Any, ...]
    stride: int
    lanes: int

    def copy(self, buffer: Any, along: Any, put: Put) -> None:
        for number, start in enumerate(self.starts):
            with vectorized(index(0), index(self.lanes)) as lane:
                put(number * self.lanes + lane, at(buffer, start + along + lane * self.stride))


@dataclasses.dataclass(frozen=True)
class _Anywhere(Columns):
    """A table of places."""

    table: Any
    width: int

    def copy(self, buffer: Any, along: Any, put: Put) -> None:
        with serial(index(0), index(self.width)) as lane:
            put(lane, at(buffer, self.table[lane] + along))
