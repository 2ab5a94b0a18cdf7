"""Attention whose products are both int8 (``quantize_activations{products: true}``).

Queries and keys have a scale per token, values one for all, and rows of the softmax one each, all
found at run time or static where that is one for a tensor. What is rounded is recognized by
``fewbits.fake_quantize`` before each product.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from tvm import relax

from ....formats.integer import Integer
from ....ops.symbolic import extents_of
from ....passes.rewrite import constant, operator_of
from ....schedules.cuda.attention.int8_kernel import Int8Attention, int8_attention
from ....schedules.cuda.attention.problem import Mask
from ...vm.attention import (
    HEADS_AND_TOKENS,
    HEADS_TOKENS_LAST,
    TOKENS_LAST,
    Reading,
    four_axes,
    is_one,
    permutation,
    tokens_first,
)
from ...vm.calls import tensor_type
from ...vm.readers import Readers
from .quantized import Activation, activation_of, codes_of
from .selection import Selection

#: TVM's expressions and types are built by calls that its annotations do not cover.
_op: Any = relax.op

_REACH = 127


@dataclasses.dataclass(frozen=True, eq=False)
class Int8Match:
    """Attention in a module; operands are old expressions.

    Attributes:
        last: the variable whose value the kernel computes.
        q, k, v: the roundings before the products, of values before any transposition of heads.
        mask: added to the scores, or None.
        scale: what scores are multiplied by.
        heads_first: of q, k, v and the result.
    """

    last: relax.Var
    q: Activation
    k: Activation
    v: Activation
    mask: relax.Expr | None
    scale: float
    heads_first: tuple[bool, bool, bool, bool]


def find_int8_attention(
    bindings: list[tuple[relax.Var, relax.Expr]], readers: Readers
) -> dict[relax.Var, Int8Match]:
    """Every attention in int8, by its last variable."""
    reading = Reading(dict(bindings), readers)
    found = (
        _match(reading, var, value)
        for var, value in bindings
        if operator_of(value) == "relax.nn.softmax"
    )
    return {match.last: match for match in found if match is not None}


def _match(reading: Reading, softmax: relax.Var, call: Any) -> Int8Match | None:
    shape = extents_of(softmax)
    if len(shape) != 4 or int(call.attrs.axis) not in (-1, 3):
        return None
    rounded = reading.readers.only(softmax)
    scores = reading.scores(call.args[0])
    if rounded is None or scores is None or not _is(activation_of(rounded[1]), "token"):
        return None
    after = reading.readers.only(rounded[0])
    if after is None or operator_of(after[1]) != "relax.matmul":
        return None
    last, sums = after
    product, scale, mask = scores
    kind: Any = None if mask is None else mask.ty
    if kind is not None and str(kind.dtype) != "float32":
        return None
    turned: Any = reading.values.get(product.args[1])
    if not sums.args[0].same_as(rounded[0]) or operator_of(turned) != "relax.permute_dims":
        return None
    order = permutation(turned)
    if order not in (HEADS_TOKENS_LAST, TOKENS_LAST):
        return None
    q, k, v = (
        activation_of(reading.values.get(operand))
        for operand in (product.args[0], turned.args[0], sums.args[1])
    )
    if q is None or k is None or v is None or not _is(q, "token") or not _is(k, "token"):
        return None
    if not (_is(v, "tensor") or _is(v, "static")):
        return None
    q, q_first = _before(reading, q)
    v, v_first = _before(reading, v)
    k_first = order == HEADS_TOKENS_LAST
    out_first = True
    following = reading.readers.only(last)
    if following is not None and permutation(following[1]) == HEADS_AND_TOKENS:
        last, out_first = following[0], False
    for operand, first in ((q, q_first), (k, k_first), (v, v_first)):
        sizes = extents_of(operand.x)
        if len(sizes) != 4 or sizes[1 if first else 2] != shape[1]:
            return None
    return Int8Match(last, q, k, v, mask, scale, (q_first, k_first, v_first, out_first))


def _before(reading: Reading, activation: Activation) -> tuple[Activation, bool]:
    """The rounding before tokens and heads changed places, and whether they did not.

    Scales along the last axis, or of the whole, are the same on either side.
    """
    call: Any = reading.values.get(activation.x)  # type: ignore[arg-type]
    if permutation(call) != HEADS_AND_TOKENS:
        return activation, True
    return dataclasses.replace(activation, x=call.args[0]), False


def _is(activation: Activation | None, scales: str) -> bool:
    """Whether something is rounded to 127 levels either side, with scales of that kind."""
    if activation is None or activation.scales != scales:
        return False
    levels = activation.format
    return isinstance(levels, Integer) and levels.signed and levels.reach == _REACH


def emit_int8_attention(selection: Selection, match: Int8Match) -> relax.Var | None:
    """A call of the kernel; None where its sizes or types are not the kernel's."""
    (batch, rows, heads, size), (_, _, _, value_size) = (
        tokens_first(operand.x, first)
        for operand, first in ((match.q, match.heads_first[0]), (match.v, match.heads_first[2]))
    )
    if not all(isinstance(number, int) for number in (heads, size, value_size)):
        return None
    mask = None
    if match.mask is not None:
        over = [not is_one(n) for n in four_axes(extents_of(match.mask))[:3]]
        mask = Mask(*over)
    problem = Int8Attention(
        int(heads), int(size), int(value_size), match.scale, selection.dtype, mask,
        match.heads_first,
    )  # fmt: skip
    if problem.refusal() is not None:
        return None
    name = str(match.last.name)
    inputs: list[relax.Expr] = []
    for activation in (match.q, match.k, match.v):
        codes, scales = codes_of(selection, activation, np.dtype(np.int8), name)
        sizes = extents_of(activation.x)
        inputs.append(selection.rewriter.emit(_op.reshape(codes, sizes), name))
        if activation.scales == "token":
            inputs.append(selection.rewriter.emit(_op.reshape(scales, sizes[:3]), name))
        elif scales is not None:
            inputs.append(scales)
        else:
            assert activation.scale is not None
            inputs.append(constant(activation.scale.reshape(1).astype(np.float32)))
    if match.mask is not None:
        given = selection.rewriter.map(match.mask)
        shape = four_axes(extents_of(match.mask))
        inputs.append(selection.rewriter.emit(_op.reshape(given, shape), name))
    key = repr(problem)
    architecture = selection.architecture
    _, host = selection.special(
        key, lambda title: int8_attention(problem, architecture, title), "int8_attention"
    )
    selection.notes[name] = f"int8 attention {architecture.name}"
    result = tensor_type(problem.shape(3, batch, rows), selection.dtype)
    y = selection.call(key, host, inputs, [result], name)
    return selection.rewriter.emit(_op.astype(y, "float32"), name)
