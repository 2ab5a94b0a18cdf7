"""Constant operands, float or few-bit: ``constant`` and ``dequantize(constant)`` look the same."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from tvm import ir

from ...ops.meanings.common import from_numpy, to_numpy
from ...ops.registry import meaning_of
from ..rewrite import as_array, constant
from .graph import Graph, array_of, with_attributes

#: Weights this much smaller than their layer's largest are zeros that regularization has left
#: (pruned networks hold values around 1e-30): no float32 sum notices them.
NEGLIGIBLE = 1e-20


@dataclasses.dataclass(frozen=True)
class Weight:
    """A constant operand.

    Attributes:
        expression: the constant, or the call of ``dequantize`` that makes it.
        value: its real values.
    """

    expression: Any
    value: np.ndarray

    @property
    def is_float(self) -> bool:
        """Whether the values themselves are stored, so that any others could be."""
        return isinstance(self.expression, ir.GenericConst)

    @property
    def significant(self) -> np.ndarray:
        """The values in float64, negligible ones as zeros."""
        value = self.value.astype(np.float64)
        largest = np.abs(value).max(initial=0.0)
        return np.where(np.abs(value) > NEGLIGIBLE * largest, value, 0.0)

    def taken(self, axis: int, positions: np.ndarray | None) -> Weight:
        """The operand with these positions of an axis only (None: all of them)."""
        if positions is None:
            return self
        value = self.value.take(positions, axis)
        if self.is_float:
            return Weight(constant(value), value)
        codes, *parameters = (as_array(argument) for argument in self.expression.args)
        if int(self.expression.attrs.axis) % value.ndim == axis % value.ndim:
            parameters = [p.take(positions) if p.size > 1 else p for p in parameters]
        arrays = [codes.take(positions, axis), *parameters]
        expression = with_attributes(self.expression, [constant(array) for array in arrays])
        return Weight(expression, value)


def weight_of(graph: Graph, expression: Any) -> Weight | None:
    """An argument as a constant operand, if it is one."""
    array = array_of(expression)
    if array is not None:
        return Weight(expression, array)
    call = graph.call(expression, "relax.dequantize")
    arrays = [] if call is None else [array_of(argument) for argument in call.args]
    if call is None or any(array is None for array in arrays):
        return None
    value = meaning_of("relax.dequantize")(call, *(from_numpy(a) for a in arrays if a is not None))
    return Weight(call, to_numpy(value))
