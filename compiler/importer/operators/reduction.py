"""Reductions along axes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tvm import relax

from ..node import Node, Result

op: Any = relax.op

Element = Callable[[relax.Expr], relax.Expr]


def _same(x: relax.Expr) -> relax.Expr:
    return x


def _square(x: relax.Expr) -> relax.Expr:
    return op.multiply(x, x)


def _axes(node: Node) -> list[int]:
    """The axes to reduce; none is nothing to reduce.

    They are an attribute, or (ReduceSum since opset 13, the others since 18) an input.
    """
    axes = node.known_ints(1, "the axes") if node.has(1) else node.ints("axes") or []
    if not axes:
        return [] if node.int("noop_with_empty_axes", 0) else list(range(node.rank()))
    return sorted({node.normalize_axis(axis) for axis in axes})


def _reduction(
    reduce: Callable[..., relax.Expr], before: Element = _same, after: Element = _same
) -> Callable[[Node], Result]:
    """A converter: `before` on each element, `reduce` over the axes, `after` on the result."""

    def convert(node: Node) -> Result:
        axes, x = _axes(node), before(node[0])
        if axes:
            x = reduce(x, axis=axes, keepdims=bool(node.int("keepdims", 1)))
        return after(x)

    return convert


def _extreme(reduce: Callable[..., relax.Expr]) -> Callable[[Node], Result]:
    """Largest or smallest element; booleans are compared as bytes."""
    plain = _reduction(reduce)
    boolean = _reduction(reduce, lambda x: op.astype(x, "uint8"), lambda x: op.astype(x, "bool"))
    return lambda node: (boolean if node.dtype() == "bool" else plain)(node)


def _log_sum_exp(node: Node) -> Result:
    """log(sum(exp(x))) around the maximum, so that nothing overflows."""
    axes, keep = _axes(node), bool(node.int("keepdims", 1))
    if not axes:
        return node[0]
    largest = node.emit(op.max(node[0], axis=axes, keepdims=True))
    exponentials = op.exp(op.subtract(node[0], largest))
    logarithm = op.log(op.sum(exponentials, axis=axes, keepdims=True))
    result = op.add(logarithm, largest)
    return result if keep else op.squeeze(result, axes)


def _argument(function: Callable[..., relax.Expr]) -> Callable[[Node], Result]:
    def convert(node: Node) -> Result:
        axis, keep = node.axis("axis", 0), bool(node.int("keepdims", 1))
        x = node[0]
        if not node.int("select_last_index", 0):
            return function(x, axis=axis, keepdims=keep)
        # The last occurrence is the first one seen from behind.
        behind = function(op.flip(x, axis), axis=axis, keepdims=keep)
        return op.subtract(relax.const(node.shape(0)[axis] - 1, "int64"), behind)

    return convert


CONVERTERS = {
    "ReduceSum": _reduction(op.sum),
    "ReduceMean": _reduction(op.mean),
    "ReduceMax": _extreme(op.max),
    "ReduceMin": _extreme(op.min),
    "ReduceProd": _reduction(op.prod),
    "ReduceL1": _reduction(op.sum, before=op.abs),
    "ReduceL2": _reduction(op.sum, before=_square, after=op.sqrt),
    "ReduceSumSquare": _reduction(op.sum, before=_square),
    "ReduceLogSum": _reduction(op.sum, after=op.log),
    "ReduceLogSumExp": _log_sum_exp,
    "ArgMax": _argument(op.argmax),
    "ArgMin": _argument(op.argmin),
}
