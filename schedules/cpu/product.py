"""Recognize products: matrix, batched and vector products, convolutions over channels.

A sum of products of two buffers is one kernel, whatever its axes are called. Axes that only one
operand has are the rows; those that only the other has are the columns, where the output is
contiguous; what both have are separate products. In a convolution the weights give the rows and the
image the columns.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from tvm import ir
from tvm.ir import prim
from tvm_ffi import structural_equal

from ..stages.access import flat_offset
from ..stages.program import Axis, Stage, constant, is_one, loads, substitute, total, uses
from .emit import simplified
from .vector_math import prim_dtype

#: Shorter sums do not pay for packing.
_SHORTEST_SUM = 8


@dataclasses.dataclass(frozen=True)
class Operand:
    """An operand's element is at ``place(outer, own axes) + along(summed axes)``.

    Attributes:
        load: the element read.
        place: the offset where all summed axes are 0.
        along: what the summed axes add to it.
    """

    load: Any
    place: Any
    along: Any


@dataclasses.dataclass(frozen=True)
class Product:
    """``stage.buffer[...] = Σ left · right``.

    Attributes:
        stage: the sum.
        left: has the rows; its elements are read one by one.
        right: has the columns; its elements are read as vectors.
        outer: axes of separate products.
        rows: axes of the left operand only, the last fastest.
        columns: axes of the right operand only, innermost in the output, the last fastest.
        summed: the reduction's axes.
    """

    stage: Stage
    left: Operand
    right: Operand
    outer: tuple[Axis, ...]
    rows: tuple[Axis, ...]
    columns: tuple[Axis, ...]
    summed: tuple[Axis, ...]

    def count(self, axes: Sequence[Axis]) -> Any:
        """The number of places along some axes."""
        return simplified(total([axis.extent for axis in axes]))


def recognize(stage: Stage) -> Product | None:
    """The stage as a product, or None where it is none or too small to be worth a kernel."""
    if stage.combine is not prim.Add or not isinstance(stage.value, prim.Mul):
        return None
    if not _is_zero(stage.initial) or prim_dtype(stage.value) != "float32":
        return None
    pair = (stage.value.a, stage.value.b)
    if not all(isinstance(factor, ir.TensorLoad) for factor in pair):
        return None
    if not stage.writes_in_order() or len(loads(stage.value)) != 2:
        return None
    wide = [axis for axis in stage.spatial if not is_one(axis.extent)]
    sides = [tuple(_has(factor, axis) for factor in pair) for axis in wide]
    if not wide or sides[-1] not in ((True, False), (False, True)):
        return None
    right_side = sides[-1].index(True)
    only_right = (right_side == 0, right_side == 1)
    columns = _last_run(wide, [side == only_right for side in sides])
    only_left = (not only_right[0], not only_right[1])
    rows = _last_run(wide, [side == only_left for side in sides])
    taken = {axis.var for axis in (*rows, *columns)}
    outer = tuple(axis for axis in stage.spatial if axis.var not in taken)
    summed = stage.reductions
    terms = constant(total([axis.extent for axis in summed]))
    if terms is not None and terms < _SHORTEST_SUM * (1 if rows else 4):
        return None
    left = _operand(pair[1 - right_side], stage)
    right = _operand(pair[right_side], stage)
    if left is None or right is None:
        return None
    return Product(stage, left, right, outer, rows, columns, summed)


def _has(load: Any, axis: Axis) -> bool:
    return any(uses(index, axis.var) for index in load.indices)


def _last_run(axes: Sequence[Axis], chosen: Sequence[bool]) -> tuple[Axis, ...]:
    """The last neighbouring axes that are chosen."""
    run: list[Axis] = []
    for axis, take in reversed(list(zip(axes, chosen, strict=True))):
        if take:
            run.insert(0, axis)
        elif run:
            break
    return tuple(run)


def _operand(load: Any, stage: Stage) -> Operand | None:
    """The operand's address in two parts, None where they cannot be taken apart."""
    offset = flat_offset(load.source, load.indices)
    nowhere = {axis.var: prim.IntImm("int64", 0) for axis in stage.reductions}
    place = simplified(substitute(offset, nowhere))
    along = simplified(offset - place)
    if any(uses(along, axis.var) for axis in stage.spatial):
        return None
    return Operand(load, place, along)


def _is_zero(value: Any) -> bool:
    return isinstance(value, prim.FloatImm) and float(value.value) == 0.0


@dataclasses.dataclass(frozen=True)
class Epilogue:
    """An elementwise stage over a product's results.

    Attributes:
        stage: the stage.
        places: for each of its axes the product's axis, or None for an axis of one element.
    """

    stage: Stage
    places: tuple[Axis | None, ...]


def epilogue(product: Product, stage: Stage) -> Epilogue | None:
    """How the stage follows the product element by element, None where it does not."""
    if stage.reductions:
        return None
    reads = [load for load in loads(stage.value) if load.source.same_as(product.stage.buffer)]
    if not reads:
        return None
    if any(not structural_equal(load.indices, reads[0].indices) for load in reads):
        return None
    sources: dict[Any, Axis] = {}
    for index, axis in zip(reads[0].indices, product.stage.spatial, strict=True):
        if is_one(axis.extent):
            continue
        if not isinstance(index, ir.Var) or index in sources:
            return None
        sources[index] = axis
    places = tuple(sources.pop(axis.var, None) for axis in stage.spatial)
    if sources:
        return None
    for axis, place in zip(stage.spatial, places, strict=True):
        if place is None and not is_one(axis.extent):
            return None
        if place is not None and not _same(axis.extent, place.extent):
            return None
    return Epilogue(stage, places)


def _same(a: Any, b: Any) -> bool:
    return _is_int_zero(simplified(a - b))


def _is_int_zero(value: Any) -> bool:
    return isinstance(value, prim.IntImm) and int(value.value) == 0
