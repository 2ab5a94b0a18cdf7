"""Attention between its projections as one kernel of a GPU."""

from __future__ import annotations

from typing import Any

from tvm import relax

from ....ops.symbolic import Extent, extents_of
from ....schedules.cuda.attention import Attention, refusal
from ....schedules.cuda.attention.problem import Mask
from ...vm.attention import Match, four_axes, is_one, tokens_first
from .selection import Selection, tensor_type

#: TVM's expressions and types are built by calls that its annotations do not cover.
_op: Any = relax.op


def emit_attention(selection: Selection, match: Match) -> relax.Var | None:
    """A call of the kernel; None where its sizes or types are not the kernel's."""
    operands = (match.q, match.k, match.v)
    (_, _, heads, size), _, (_, _, _, value_size) = (
        tokens_first(operand, first)
        for operand, first in zip(operands, match.heads_first, strict=False)
    )
    if not all(isinstance(number, int) for number in (heads, size, value_size)):
        return None
    mask = None
    if match.mask is not None:
        over = [not is_one(n) for n in four_axes(extents_of(match.mask))[:3]]
        mask = Mask(*over)
    problem = Attention(
        int(heads), int(size), int(value_size), match.scale, selection.dtype, mask,
        match.heads_first,
    )  # fmt: skip
    if refusal(problem, selection.architecture) is not None:
        return None
    name = str(match.last.name)
    inputs = [_half(selection, operand, name) for operand in operands]
    if match.mask is not None:
        given = selection.rewriter.map(match.mask)
        inputs.append(
            selection.rewriter.emit(_op.reshape(given, four_axes(extents_of(match.mask))), name)
        )
    kernel, host = selection.attention(problem)
    selection.notes[name] = f"attention {kernel.architecture.name}"
    result: tuple[Extent, ...] = extents_of(match.last)
    types = [tensor_type(result, selection.dtype)]
    y = selection.call(problem.key, host, inputs, types, name)
    return selection.rewriter.emit(_op.astype(y, "float32"), name)


def _half(selection: Selection, operand: relax.Expr, name: str) -> relax.Expr:
    new = selection.rewriter.map(operand)
    return selection.rewriter.emit(_op.astype(new, selection.dtype), name)
