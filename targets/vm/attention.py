"""Attention between its projections: scores, softmax, weighted sum, and the heads' transpositions.

``matmul(softmax(matmul(q, kᵀ) [/ or · number] [+ mask]), v)`` of four axes becomes one kernel if
nobody else reads what lies between. Transpositions between tokens and heads around it are left to
the kernel, which reads and writes heads wherever they are.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import tvm_ffi
from tvm import ir, relax

from ...ops.symbolic import Extent, extents_of
from ...passes.rewrite import as_array, operator_of
from .readers import Readers

#: Tokens and heads change places.
HEADS_AND_TOKENS = (0, 2, 1, 3)
#: [N, T, heads, size] as keys are multiplied by: [N, heads, size, T].
TOKENS_LAST = (0, 2, 3, 1)
#: [N, heads, T, size] to the same.
HEADS_TOKENS_LAST = (0, 1, 3, 2)


@dataclasses.dataclass(frozen=True, eq=False)
class Match:
    """Attention in a module; operands are old expressions.

    Attributes:
        last: the variable whose value the kernel computes.
        q, k, v: operands.
        mask: added to the scores, or None.
        scale: what scores are multiplied by.
        heads_first: of q, k, v and the result.
    """

    last: relax.Var
    q: relax.Expr
    k: relax.Expr
    v: relax.Expr
    mask: relax.Expr | None
    scale: float
    heads_first: tuple[bool, bool, bool, bool]


def find_attention(
    bindings: list[tuple[relax.Var, relax.Expr]], readers: Readers
) -> dict[relax.Var, Match]:
    """Every attention that has a kernel, by its last variable."""
    values = dict(bindings)
    found: dict[relax.Var, Match] = {}
    for var, value in bindings:
        if operator_of(value) == "relax.nn.softmax":
            match = Reading(values, readers).match(var, value)
            if match is not None:
                found[match.last] = match
    return found


class Reading:
    """What lies around a softmax."""

    def __init__(self, values: dict[relax.Var, relax.Expr], readers: Readers) -> None:
        self.values = values
        self.readers = readers

    def match(self, softmax: relax.Var, call: Any) -> Match | None:
        """The attention that a softmax is the middle of, or None."""
        shape = extents_of(softmax)
        if len(shape) != 4 or int(call.attrs.axis) not in (-1, 3) or not _is_float32(softmax):
            return None
        scores = self.scores(call.args[0])
        after = self.readers.only(softmax)
        if scores is None or after is None or operator_of(after[1]) != "relax.matmul":
            return None
        product, scale, mask = scores
        last, sums = after
        if not sums.args[0].same_as(softmax) or not _is_float32(last):
            return None
        q, k = product.args
        v = sums.args[1]
        if not all(isinstance(operand, relax.Var) for operand in (q, k, v)):
            return None
        q, q_first = self._heads(q, HEADS_AND_TOKENS)
        v, v_first = self._heads(v, HEADS_AND_TOKENS)
        k, k_first = self._keys(k)
        if k is None:
            return None
        out_first = True
        following = self.readers.only(last)
        if following is not None and permutation(following[1]) == HEADS_AND_TOKENS:
            last, out_first = following[0], False
        first = (q_first, k_first, v_first, out_first)
        if not _agree(shape, (q, k, v), first) or not _fits(mask, shape):
            return None
        return Match(last, q, k, v, mask, scale, first)

    def scores(self, value: relax.Expr) -> tuple[relax.Call, float, relax.Expr | None] | None:
        """The product, a factor and a mask that a value is computed from and that only it needs."""
        mask: relax.Expr | None = None
        scale = 1.0
        while isinstance(value, relax.Var) and self.readers.only(value) is not None:
            call: Any = self.values.get(value)
            operator = operator_of(call)
            if operator == "relax.matmul":
                return call, scale, mask
            if operator not in ("relax.add", "relax.multiply", "relax.divide"):
                return None
            left, right = call.args
            if operator == "relax.add":
                if mask is not None or scale != 1.0:
                    return None
                # The product has four axes of full size; whichever operand is one leads there.
                if not self._leads_to_product(left):
                    left, right = right, left
                mask = right
            else:
                if operator == "relax.multiply" and isinstance(left, ir.GenericConst):
                    left, right = right, left
                number = _number(right)
                if number is None or not number:
                    return None
                scale *= number if operator == "relax.multiply" else 1 / number
            value = left
        return None

    def _leads_to_product(self, value: relax.Expr) -> bool:
        while isinstance(value, relax.Var):
            call: Any = self.values.get(value)
            operator = operator_of(call)
            if operator not in ("relax.multiply", "relax.divide"):
                return operator == "relax.matmul"
            value = call.args[1] if isinstance(call.args[0], ir.GenericConst) else call.args[0]
        return False

    def _heads(self, value: Any, order: tuple[int, ...]) -> tuple[relax.Expr, bool]:
        """The value before a transposition, and whether there is none."""
        call: Any = self.values.get(value)
        return (call.args[0], False) if permutation(call) == order else (value, True)

    def _keys(self, value: Any) -> tuple[relax.Expr | None, bool]:
        """The keys before they were transposed for the product; None where they were not."""
        call: Any = self.values.get(value)
        order = permutation(call)
        if order == TOKENS_LAST:
            return call.args[0], False
        if order == HEADS_TOKENS_LAST:
            return self._heads(call.args[0], HEADS_AND_TOKENS)
        return None, True


def permutation(call: Any) -> tuple[int, ...] | None:
    """The order of axes that a transposition gives; None for another call."""
    if operator_of(call) != "relax.permute_dims" or call.attrs.axes is None:
        return None
    return tuple(int(axis) for axis in call.attrs.axes)


def _number(expression: relax.Expr) -> float | None:
    if not isinstance(expression, ir.GenericConst):
        return None
    array = as_array(expression)
    return float(array.reshape(())) if array.size == 1 and array.ndim <= 4 else None


def _is_float32(expression: relax.Expr) -> bool:
    ty: Any = expression.ty
    return isinstance(ty, relax.TensorType) and np.dtype(str(ty.dtype)) == np.float32


def four_axes(sizes: tuple[Extent, ...]) -> tuple[Extent, ...]:
    """Sizes with axes of one element in front."""
    return (1,) * (4 - len(sizes)) + tuple(sizes)


def tokens_first(operand: relax.Expr, heads_first: bool) -> tuple[Extent, ...]:
    """N, tokens, heads, size."""
    sizes = extents_of(operand)
    return (sizes[0], sizes[2], sizes[1], sizes[3]) if heads_first else sizes


def is_one(size: Extent) -> bool:
    """Whether a size is known to be 1."""
    return isinstance(size, int) and size == 1


def _same(a: Extent, b: Extent) -> bool:
    return a == b if isinstance(a, int) or isinstance(b, int) else _equal(a, b)


def _equal(a: Any, b: Any) -> bool:
    return bool(tvm_ffi.structural_equal(a, b))


def _agree(
    scores: tuple[Extent, ...], operands: tuple[Any, Any, Any], heads_first: tuple[bool, ...]
) -> bool:
    """Whether the operands have four axes and none is repeated along another."""
    if not all(_is_float32(operand) and len(extents_of(operand)) == 4 for operand in operands):
        return False
    q, k, v = (
        tokens_first(operand, first) for operand, first in zip(operands, heads_first, strict=False)
    )
    batch, heads, rows, columns = scores
    wanted = ((q, rows), (k, columns), (v, columns))
    return all(
        _same(sizes[0], batch) and _same(sizes[1], count) and _same(sizes[2], heads)
        for sizes, count in wanted
    )


def _fits(mask: relax.Expr | None, scores: tuple[Extent, ...]) -> bool:
    """Whether the mask has an element per column, and one or all along the other axes."""
    if mask is None:
        return True
    sizes = extents_of(mask)
    if not _is_float32(mask) or len(sizes) > 4:
        return False
    *others, columns = zip(four_axes(sizes), scores, strict=True)
    return _same(*columns) and all(is_one(size) or _same(size, full) for size, full in others)
