"""Attention masks: huge negative numbers that mean "nowhere" must not stretch a range.

A mask adds -10^4, -10^9 or the most negative float to what goes into a softmax. Whatever is far
below the row's largest value gives zero there, so the range need only reach some way down; the
masked values saturate at its lower end.
"""

from __future__ import annotations

import numpy as np
from tvm import ir, relax

from ...formats.affine import AffineFormat
from ..observers import Observer
from ..rewrite import Rewriter, operator_of, variables

#: Values below this are masked, not computed.
MASKED = -1e4
#: What a mask's own range reaches down to: beyond any attention score.
_MASK_DEPTH = -1000.0
#: So far below whatever is not masked; exp(-8) is nothing in 8 bits.
_DEPTH = 8.0


def masked_values(module: ir.IRModule) -> set[str]:
    """Names of sums that go into a softmax, and of what is added there and leads to it."""
    rewriter = Rewriter(module)
    found: set[str] = set()

    def visit(expression: relax.Expr, depth: int) -> None:
        if not isinstance(expression, relax.Var) or expression.name in found:
            return
        found.add(expression.name)
        value = rewriter.values.get(expression)
        if depth and operator_of(value) in ("relax.add", "relax.multiply", "relax.reshape"):
            for operand in variables(value) if value is not None else ():
                visit(operand, depth - 1)

    for _, value in rewriter.bindings:
        if operator_of(value) == "relax.nn.softmax" and isinstance(value, relax.Call):
            source = value.args[0]
            if operator_of(rewriter.values.get(source)) == "relax.add":
                visit(source, 3)
    return found


class Unmasked(Observer):
    """Shows another observer what is not masked, and leaves room below for what is."""

    def __init__(self, inner: Observer) -> None:
        self.inner = inner
        self.masked = False

    def update(self, values: np.ndarray) -> None:
        """See more values."""
        kept = values > MASKED
        if kept.all():
            self.inner.update(values)
        else:
            self.masked = True
            self.inner.update(values[kept])

    def range(self, grid: AffineFormat) -> tuple[float, float]:
        """The inner observer's range, deep enough for a masked value to vanish."""
        low, high = self.inner.range(grid)
        if not self.masked:
            return low, high
        return (_MASK_DEPTH, 0.0) if low == high == 0.0 else (low - _DEPTH, high)
