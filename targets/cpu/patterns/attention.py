"""Attention between its projections as one kernel of a CPU."""

from __future__ import annotations

from tvm import relax

from ....ops.symbolic import extents_of
from ....schedules.cpu.attention import Attention
from ...vm.attention import Match, four_axes, is_one, tokens_first
from .selection import Selection, known


def emit_attention(selection: Selection, match: Match) -> relax.Var | None:
    """A call of the kernel; None where its sizes are not the kernel's."""
    lanes = selection.machine.lanes
    (batch, rows, heads, size), (_, columns, _, _), (_, _, _, value_size) = (
        tokens_first(operand, first)
        for operand, first in zip((match.q, match.k, match.v), match.heads_first, strict=False)
    )
    if not all(isinstance(n, int) and n % lanes == 0 for n in (size, value_size)):
        return None
    if not isinstance(heads, int):
        return None
    wide = None
    if match.mask is not None:
        over_batch, over_heads, over_rows = (
            not is_one(size) for size in four_axes(extents_of(match.mask))[:3]
        )
        wide = (over_batch, over_heads, over_rows)
    batch, rows, columns = known((batch, rows, columns))
    kernel = Attention(
        lanes, selection.machine.registers, (batch, rows, columns), heads, size, value_size,
        match.scale, wide, match.heads_first,
    )  # fmt: skip
    inputs = [selection.rewriter.map(operand) for operand in (match.q, match.k, match.v)]
    if match.mask is not None:
        mask = selection.rewriter.map(match.mask)
        shape = four_axes(extents_of(match.mask))
        inputs.append(selection.rewriter.emit(relax.op.reshape(mask, shape), match.last.name))
    return selection.emit(kernel, inputs, [match.last.ty], match.last.name)
