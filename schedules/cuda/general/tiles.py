"""Products of matrices without tensor cores: tiles in shared memory, sums in registers.

What no template of this package takes ends here: products of float32, of odd sizes, of operands
that are computed on the way, and convolutions, which are products whose rows are the places of the
output. A block of 256 threads computes 64 by 64 results, 16 terms at a time, each thread 4 by 4 of
them. Sizes may be symbolic; what is outside reads as zero.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tvm import tirx
from tvm.tirx.script import builder as T

from ...stages.access import reads_along
from ...stages.program import Axis, Stage, constant, is_one, substitute, total
from .flat import emit_element
from .launch import (
    barrier,
    bound,
    ceildiv,
    fused,
    index,
    launch,
    registers,
    shared_memory,
    simplified,
    unrolled,
    when,
)
from .numbers import cast, dtype_of, gathering, widen
from .product_form import Product

_TILE, _DEPTH, _SIDE, _EACH = 64, 16, 16, 4
#: Rows of a tile in shared memory are this much longer, so that columns lie in different banks.
_PADDING = 1


def emit_tiles(product: Product, after: Sequence[Stage], private: Sequence[Any]) -> None:
    """The kernel of a product and of the elementwise stages behind it.

    Args:
        product: the sum.
        after: stages over the same elements, reading it at their own place.
        private: buffers that nothing outside reads.
    """
    rows, columns, depth = (
        simplified(total([axis.extent for axis in axes]))
        for axes in (product.rows, product.columns, product.summed)
    )
    down, across = ceildiv(rows, _TILE), ceildiv(columns, _TILE)
    batch = total([axis.extent for axis in product.outer])
    with launch(simplified(batch * down * across), _SIDE, _SIDE) as (block, x, y):
        tile = T.Bind(block // across)
        column = T.Bind(block % across * _TILE)
        row = T.Bind(tile % down * _TILE)
        places = {a.var: index(0) for a in product.stage.axes if is_one(a.extent)}
        places |= bound(fused(product.outer, tile // down))
        dtype = gathering(dtype_of(product.stage.buffer))
        sums = registers(_EACH * _EACH, dtype)
        initial = cast(dtype, widen(product.stage.initial))
        unrolled(_EACH * _EACH, lambda n: T.buffer_store(sums, initial, [n]))
        left, right = (shared_memory((_DEPTH, _TILE + _PADDING), dtype) for _ in range(2))
        mine, theirs = registers(_EACH, dtype), registers(_EACH, dtype)
        thread = y * _SIDE + x
        with T.serial(index(0), ceildiv(depth, _DEPTH)) as step:
            first = step * _DEPTH
            for tile_of, value, axes, start, size in (
                (left, product.left, product.rows, row, rows),
                (right, product.right, product.columns, column, columns),
            ):
                operand = substitute(widen(value), places)
                _fill(tile_of, operand, (axes, start, size), (product.summed, first, depth), thread)
            barrier()
            with T.serial(index(0), index(_DEPTH)) as k:
                unrolled(_EACH, lambda i: T.buffer_store(mine, left[k, y + i * _SIDE], [i]))
                unrolled(_EACH, lambda j: T.buffer_store(theirs, right[k, x + j * _SIDE], [j]))

                def add(n: Any) -> None:
                    term = mine[n // _EACH] * theirs[n % _EACH]
                    T.buffer_store(sums, sums[n] + term, [n])

                unrolled(_EACH * _EACH, add)
            barrier()

        def finish(n: Any) -> None:
            i, j = row + y + n // _EACH * _SIDE, column + x + n % _EACH * _SIDE
            with when(tirx.all(_below(i, rows), _below(j, columns))):
                here = {**places, **fused(product.rows, i), **fused(product.columns, j)}
                held = registers(1, dtype)
                T.buffer_store(held, sums[n], [index(0)])
                emit_element(product.stage, after, bound(here), held, private)

        unrolled(_EACH * _EACH, finish)


def _fill(
    tile: Any,
    value: Any,
    across: tuple[Sequence[Axis], Any, Any],
    along: tuple[Sequence[Axis], Any, Any],
    thread: Any,
) -> None:
    """Elements of an operand into shared memory, neighbours in memory by neighbouring threads."""
    axes, start, size = across
    summed, first, depth = along
    by_depth = _runs_along(value, summed) and not _runs_along(value, axes)

    def one(n: Any) -> None:
        number = n * (_SIDE * _SIDE) + thread
        if by_depth:
            k, m = number % _DEPTH, number // _DEPTH
        else:
            k, m = number // _TILE, number % _TILE
        place = {**fused(axes, start + m), **fused(summed, first + k)}
        inside = tirx.all(_below(start + m, size), _below(first + k, depth))
        zero = tirx.const(0, dtype_of(tile))
        element = cast(dtype_of(tile), substitute(value, place))
        T.buffer_store(tile, tirx.if_then_else(simplified(inside), element, zero), [k, m])

    unrolled(_TILE * _DEPTH // (_SIDE * _SIDE), one)


def _below(position: Any, size: Any) -> Any:
    known = constant(size)
    if known is not None and known % _TILE == 0 and known >= _TILE:
        return tirx.const(True, "bool")
    return position < size


def _runs_along(value: Any, axes: Sequence[Axis]) -> bool:
    return bool(axes) and reads_along(value, axes[-1].var)
