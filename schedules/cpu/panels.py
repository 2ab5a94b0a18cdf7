"""Weights in the order the kernel reads them, rearranged at compile time."""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray
from tvm import ir

from ..stages.program import constant, is_one
from .product import Product


@dataclasses.dataclass(frozen=True)
class Packing:
    """How an array becomes panels: [panels, terms of the sum, columns of a panel], flat.

    Attributes:
        order: the array's dimensions, those summed over first, then the columns.
        summed: terms of the sum.
        columns: columns of the matrix.
        width: columns of a panel; missing ones of the last panel are 0.
    """

    order: tuple[int, ...]
    summed: int
    columns: int
    width: int

    @property
    def shape(self) -> tuple[int]:
        """The packed array's shape."""
        return (-(-self.columns // self.width) * self.summed * self.width,)

    def apply(self, array: NDArray[np.float32]) -> NDArray[np.float32]:
        """The packed array."""
        matrix = array.transpose(self.order).reshape(self.summed, self.columns)
        panels = -(-self.columns // self.width)
        padded = np.zeros((self.summed, panels * self.width), array.dtype)
        padded[:, : self.columns] = matrix
        split = padded.reshape(self.summed, panels, self.width)
        return np.ascontiguousarray(split.transpose(1, 0, 2)).reshape(-1)


def packing(product: Product, width: int) -> Packing | None:
    """The packing of a product's right operand, None where it is no rearranged matrix.

    Args:
        product: the operand's indices must be axes, each once.
        width: columns of a panel.
    """
    load = product.right.load
    dimensions: dict[object, int] = {}
    unit: list[int] = []
    for number, (index, extent) in enumerate(zip(load.indices, load.source.ty.shape, strict=True)):
        if is_one(extent):
            unit.append(number)
        elif isinstance(index, ir.Var) and index not in dimensions:
            dimensions[index] = number
        else:
            return None
    axes = [a for a in (*product.summed, *product.columns) if not is_one(a.extent)]
    if set(dimensions) != {axis.var for axis in axes}:
        return None
    if any(not _covers(load, dimensions[axis.var], axis.extent) for axis in axes):
        return None
    summed, columns = (
        constant(product.count(product.summed)),
        constant(product.count(product.columns)),
    )
    if summed is None or columns is None:
        return None
    order = (*unit, *(dimensions[axis.var] for axis in axes))
    return Packing(order, summed, columns, width)


def _covers(load: ir.TensorLoad, dimension: int, extent: object) -> bool:
    size = constant(load.source.ty.shape[dimension])
    return size is not None and size == constant(extent)
