"""``MatMulInteger`` and ``ConvInteger``: exact int32 results from 8-bit operands.

Both sum ``(a - a_zero) * (b - b_zero)``. The operands stay int8 and the zero points leave the sum:

    sum a*b - a_zero * sum b - b_zero * sum a + count * a_zero * b_zero

so the product is one ``relax.matmul`` or ``relax.nn.conv2d`` of int8 tensors with result int32,
which every back end can recognise; of the corrections only those that are not constant zero are
emitted, and sums of constant weights are constants. Dynamic quantization is the usual producer:
its ``MatMulInteger -> Cast -> Mul(scales)`` is ``matmul(int8) -> subtract -> astype -> multiply``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
from tvm import relax

from .node import Node, Result
from .operators.windows import windows_of
from .values import dtype_of, static_shape

op: Any = relax.op  # its annotations are narrower than what it takes


@dataclasses.dataclass(frozen=True)
class _Operand:
    """An 8-bit operand as int8 codes, and its zero point.

    Attributes:
        codes: int8 expression.
        known: the codes, if they are known at import.
        zero: the zero point as int32, an expression or an array; it broadcasts over the codes.
    """

    codes: relax.Expr
    known: np.ndarray | None
    zero: relax.Expr | np.ndarray


def to_signed(node: Node, value: relax.Expr) -> relax.Expr:
    """uint8 codes as int8: 128 less, which is the same bits with the top one flipped."""
    if dtype_of(value) == "int8":
        return value
    return op.astype(op.bitwise_xor(value, relax.const(128, "uint8")), "int8")


def _operand(node: Node, data: int, zero: int, zero_shape: tuple[int, ...]) -> _Operand:
    unsigned = node.dtype(data) == "uint8"
    offset = 128 if unsigned else 0
    known = node.constant(data)
    if known is not None:
        known = (known.astype(np.int16) - offset).astype(np.int8)
        codes: relax.Expr = relax.const(known)
    else:
        codes = node.emit(to_signed(node, node[data]))
    if not node.has(zero):
        return _Operand(codes, known, np.array(-offset, np.int32))
    array = node.constant(zero)
    if array is not None:
        shifted = np.asarray(array.astype(np.int32) - offset)
        return _Operand(codes, known, shifted.reshape(zero_shape if shifted.size > 1 else ()))
    shifted = op.astype(to_signed(node, node[zero]), "int32")
    shape = zero_shape if int(np.prod(node.shape(zero))) > 1 else ()
    if node.shape(zero) != shape:
        shifted = op.reshape(shifted, shape)
    return _Operand(codes, known, node.emit(shifted))


#: A part of the result, known at import or not.
Term: TypeAlias = "relax.Expr | np.ndarray"
#: Gives the sum of b and of a over the summed axes, and how many products are summed.
Sums: TypeAlias = "Callable[[], tuple[Term, Term, int]]"


def _is_zero(term: Term) -> bool:
    return isinstance(term, np.ndarray) and not term.any()


def _expression(term: Term) -> relax.Expr:
    return relax.const(term) if isinstance(term, np.ndarray) else term


def _times(left: Term, right: Term) -> Term:
    if isinstance(left, np.ndarray) and isinstance(right, np.ndarray):
        return np.asarray(left * right, np.int32)
    return op.multiply(_expression(left), _expression(right))


def _corrected(
    node: Node,
    product: relax.Expr,
    a: _Operand,
    b: _Operand,
    sums: Callable[[], tuple[Term, Term, int]],
) -> relax.Expr:
    """The sum of products without the zero points' part; sums broadcast over the product."""
    a_zero, b_zero = not _is_zero(a.zero), not _is_zero(b.zero)
    if a_zero or b_zero:
        sum_b, sum_a, count = sums()
        if a_zero:
            product = op.subtract(product, _expression(_times(a.zero, sum_b)))
        if b_zero:
            product = op.subtract(product, _expression(_times(b.zero, sum_a)))
        if a_zero and b_zero:
            both = _times(_times(a.zero, b.zero), np.array(count, np.int32))
            product = op.add(product, _expression(both))
    return product


def _sum(operand: _Operand, axes: list[int]) -> Term:
    if operand.known is not None:
        return operand.known.sum(tuple(axes), keepdims=True, dtype=np.int32)
    return op.sum(op.astype(operand.codes, "int32"), axes, keepdims=True)


def _matmul_integer(node: Node) -> Result:
    left, right = node.rank(0), node.rank(1)
    if min(left, right) < 2:
        raise node.refuse("a vector operand")
    a = _operand(node, 0, 2, _column(node, 2, node.shape(0)))
    b = _operand(node, 1, 3, _row(node, 3))
    product = op.matmul(a.codes, b.codes, out_dtype="int32")
    count = node.shape(0)[-1]
    return _corrected(
        node, product, a, b, lambda: (_sum(b, [right - 2]), _sum(a, [left - 1]), count)
    )


def _column(node: Node, index: int, shape: Sequence[int]) -> tuple[int, ...]:
    """The shape of a zero point per row: [M] becomes [M, 1], others already are so."""
    given = tuple(node.shape(index)) if node.has(index) else ()
    return (*given, 1) if len(given) == 1 and len(shape) > 1 else given


def _row(node: Node, index: int) -> tuple[int, ...]:
    """The shape of a zero point per column: [N] broadcasts as it is."""
    return tuple(node.shape(index)) if node.has(index) else ()


def _conv_integer(node: Node) -> Result:
    if node.rank() != 4:
        raise node.refuse(f"{node.rank() - 2} spatial axes", "only images are supported")
    groups = node.int("group", 1)
    channels = node.shape(1)[0]
    x = _operand(node, 0, 2, ())
    w = _operand(node, 1, 3, (channels, 1, 1, 1))
    windows = windows_of(node, list(node.shape(1)[2:]))
    x = dataclasses.replace(x, codes=node.emit(_padded(node, x, windows.begin, windows.end)))

    def convolved(data: relax.Expr, weights: relax.Expr) -> relax.Expr:
        return op.nn.conv2d(
            data,
            weights,
            strides=windows.strides,
            dilation=windows.dilations,
            groups=groups,
            out_dtype="int32",
        )

    def sums() -> tuple[Term, Term, int]:
        total = _sum(w, [1, 2, 3])
        if isinstance(total, np.ndarray):
            total = total.reshape(1, channels, 1, 1)
        else:
            total = op.reshape(total, (1, channels, 1, 1))
        ones = relax.const(np.ones(node.shape(1), np.int8))
        sum_x = np.zeros(()) if _is_zero(w.zero) else convolved(x.codes, ones)
        return total, sum_x, int(np.prod(node.shape(1)[1:]))

    weights = dataclasses.replace(w, zero=_per_channel(w.zero, channels))
    return _corrected(node, convolved(x.codes, w.codes), x, weights, sums)


def _per_channel(zero: Term, channels: int) -> Term:
    """A zero point per filter, broadcasting over the result."""
    if isinstance(zero, np.ndarray):
        return zero.reshape(1, channels, 1, 1) if zero.size > 1 else zero
    return op.reshape(zero, (1, channels, 1, 1)) if static_shape(zero) else zero


def _padded(node: Node, x: _Operand, begin: list[int], end: list[int]) -> relax.Expr:
    """The codes with padding that means zero: the zero point, which may be a run-time value."""
    if not any((*begin, *end)):
        return x.codes
    widths = [0, 0, 0, 0]
    for before, after in zip(begin, end, strict=True):
        widths += [before, after]
    if isinstance(x.zero, np.ndarray):
        return op.nn.pad(x.codes, widths, "constant", float(x.zero))
    inside = np.pad(np.ones(node.shape(0)[2:], bool), list(zip(begin, end, strict=True)))
    padded = op.nn.pad(x.codes, widths, "constant", 0.0)
    return op.where(relax.const(inside[None, None]), padded, op.astype(x.zero, "int8"))


INTEGER_CONVERTERS = {"MatMulInteger": _matmul_integer, "ConvInteger": _conv_integer}
