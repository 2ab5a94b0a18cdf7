"""Matrix products."""

from __future__ import annotations

from typing import Any

import numpy as np
from tvm import relax

from ..node import Node, Result
from ..values import constant

op: Any = relax.op


def _matmul(node: Node) -> Result:
    return op.matmul(node[0], node[1])


def _operand(node: Node, index: int, transpose: bool, factor: float) -> tuple[relax.Expr, float]:
    """Input `index`, transposed and scaled, and the factor that is left to apply.

    Both are folded into a constant; of a run-time value only the transpose is emitted.
    """
    array = node.constant(index)
    if array is None:
        return (op.permute_dims(node[index], [1, 0]) if transpose else node[index]), factor
    if not transpose and factor == 1.0:
        return node[index], 1.0
    array = np.ascontiguousarray(array.T) if transpose else array
    return constant((array * factor).astype(array.dtype)), 1.0


def _gemm(node: Node) -> Result:
    """``alpha * A' * B' + beta * C``."""
    b, alpha = _operand(node, 1, bool(node.int("transB", 0)), node.float("alpha", 1.0))
    a, alpha = _operand(node, 0, bool(node.int("transA", 0)), alpha)
    product = op.matmul(a, b)
    if alpha != 1.0:
        product = op.multiply(product, node.scalar(alpha))
    beta = node.float("beta", 1.0)
    if not node.has(2) or beta == 0.0:
        return product
    c, beta = _operand(node, 2, False, beta)
    return op.add(product, c if beta == 1.0 else op.multiply(c, node.scalar(beta)))


CONVERTERS = {"MatMul": _matmul, "Gemm": _gemm}
