"""Sums of products of two operands, whatever their axes are called: matrices and convolutions."""

from __future__ import annotations

import dataclasses
from typing import Any

from tvm.ir import prim

from ...stages.program import Axis, Stage, constant, is_one, loads, uses

#: Shorter sums, and fewer rows or columns, are not worth a tile.
_SHORTEST_SUM = 8
_FEWEST = 16


@dataclasses.dataclass(frozen=True)
class Product:
    """``stage.buffer[outer, rows, columns] = Σ left · right`` over the summed axes.

    Attributes:
        stage: the sum.
        left: expression of the outer axes, the rows and the summed axes.
        right: expression of the outer axes, the columns and the summed axes.
        outer: axes of separate products.
        rows: axes of the left operand alone.
        columns: axes of the right operand alone; one of them is innermost in the output.
        summed: the reduction's axes.
    """

    stage: Stage
    left: Any
    right: Any
    outer: tuple[Axis, ...]
    rows: tuple[Axis, ...]
    columns: tuple[Axis, ...]
    summed: tuple[Axis, ...]


def is_product(stage: Stage) -> bool:
    """Whether the stage is a sum of products of two operands that read memory."""
    return (
        stage.combine is prim.Add
        and isinstance(stage.value, prim.Mul)
        and bool(loads(stage.value.a))
        and bool(loads(stage.value.b))
        and not _same_reads(stage.value)
    )


def _same_reads(value: Any) -> bool:
    """Whether both factors read the same memory, as in a sum of squares."""
    return any(a.source.same_as(b.source) for a in loads(value.a) for b in loads(value.b))


def read_product(stage: Stage) -> Product | None:
    """The stage as a product with rows and columns, or None where it has too few of either."""
    if not is_product(stage) or not stage.writes_in_order():
        return None
    left, right = stage.value.a, stage.value.b
    wide = [axis for axis in stage.spatial if not is_one(axis.extent)]
    summed = tuple(axis for axis in stage.reductions if not is_one(axis.extent))
    if not wide or not summed:
        return None
    if uses(left, wide[-1].var):
        left, right = right, left
    outer = tuple(a for a in wide if uses(left, a.var) and uses(right, a.var))
    rows = tuple(a for a in wide if uses(left, a.var) and not uses(right, a.var))
    columns = tuple(a for a in wide if not uses(left, a.var))
    if not all(uses(left, axis.var) and uses(right, axis.var) for axis in summed):
        return None
    if any(_fewer(axes, least) for axes, least in (
        (summed, _SHORTEST_SUM), (rows, _FEWEST), (columns, _FEWEST)
    )):  # fmt: skip
        return None
    return Product(stage, left, right, outer, rows, columns, summed)


def _fewer(axes: tuple[Axis, ...], least: int) -> bool:
    size = 1
    for axis in axes:
        extent = constant(axis.extent)
        if extent is None:
            return False
        size *= extent
    return size < least
