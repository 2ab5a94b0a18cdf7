"""Attention between its projections as one kernel of a GPU, or two for a step of decoding.

Models with fewer heads of keys than of queries are exported with the keys repeated. The kernel
reads each head as often as it is wanted instead, from before the repetition.
"""

from __future__ import annotations

from typing import Any

import tvm_ffi
from tvm import relax

from ....ops.symbolic import Extent, extents_of
from ....passes.rewrite import operator_of
from ....schedules.cuda.attention import Attention, partial_shapes, refusal
from ....schedules.cuda.attention.problem import Mask
from ....schedules.cuda.attention.sizes import Sizes, rule
from ...vm.attention import Match, four_axes, is_one, tokens_first
from ...vm.calls import tensor_type
from .selection import Selection

#: TVM's expressions and types are built by calls that its annotations do not cover.
_op: Any = relax.op

#: What only gives an array other axes.
_VIEWS = ("relax.reshape", "relax.expand_dims", "relax.squeeze")


def emit_attention(selection: Selection, match: Match) -> relax.Var | None:
    """A call of the kernel; None where its sizes or types are not the kernel's."""
    operands: list[relax.Expr] = [match.q, match.k, match.v]
    first = list(match.heads_first)
    (_, rows, heads, size), _, (_, _, _, value_size) = (
        tokens_first(operand, leads) for operand, leads in zip(operands, first, strict=False)
    )
    if not all(isinstance(number, int) for number in (heads, size, value_size)):
        return None
    mask = None
    if match.mask is not None:
        over = [not is_one(n) for n in four_axes(extents_of(match.mask))[:3]]
        mask = Mask(*over)
    shared = 1
    bare = [_once(selection, operands[place], first[place]) for place in (1, 2)]
    if bare[0][2] == bare[1][2]:
        shared = bare[0][2]
        for place, (operand, leads, _) in zip((1, 2), bare, strict=True):
            operands[place], first[place] = operand, leads
    problem = Attention(
        int(heads), int(size), int(value_size), match.scale, selection.dtype, mask,
        (first[0], first[1], first[2], first[3]), shared,
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
    known = rows if isinstance(rows, int) else None
    sizes = rule(problem, selection.architecture.shared_memory, known)
    y = _called(selection, problem, sizes, inputs, match)
    return selection.rewriter.emit(_op.astype(y, "float32"), name)


def _called(
    selection: Selection, problem: Attention, sizes: Sizes, inputs: list[relax.Expr], match: Match
) -> relax.Var:
    """The kernel's call, and where blocks share the keys that of the second one."""
    name = str(match.last.name)
    kernel, host = selection.attention(problem, sizes)
    note = f"attention {kernel.architecture.name}"
    selection.notes[name] = note if sizes.parts == 1 else f"{note} in {sizes.parts} parts"
    result: tuple[Extent, ...] = extents_of(match.last)
    types = [tensor_type(result, selection.dtype)]
    key = f"{problem.key} {sizes}"
    if sizes.parts == 1:
        return selection.call(key, host, inputs, types, name)
    batch, rows, *_ = tokens_first(match.q, match.heads_first[0])
    shapes = partial_shapes(problem, sizes.parts, batch, rows)
    partial = [tensor_type(shape, "float32") for shape in shapes]
    both = selection.call(key, host, inputs, partial, name)
    parts = [
        selection.rewriter.emit(relax.TupleGetItem(both, place), name)
        for place in range(len(partial))
    ]
    combined, host = selection.combination(problem, sizes.parts)
    return selection.call(combined.name, host, parts, types, name)


def _once(selection: Selection, operand: Any, heads_first: bool) -> tuple[relax.Expr, bool, int]:
    """What an operand repeats head by head, whether its heads lead, and how often each is there.

    [N, H, T, D] reshaped from [N, H / r, r, T, D], which is broadcast from r = 1; or the same with
    tokens first.
    """
    values = selection.rewriter.values
    axis = 1 if heads_first else 2
    wide: Any = values.get(operand)
    if operator_of(wide) != "relax.reshape":
        return operand, heads_first, 1
    spread: Any = values.get(wide.args[0])
    if operator_of(spread) != "relax.broadcast_to":
        return operand, heads_first, 1
    sizes, result = extents_of(wide.args[0]), extents_of(operand)
    narrow: Any = spread.args[0]
    if len(sizes) != 5 or not isinstance(narrow, relax.Var):
        return operand, heads_first, 1
    times = sizes[axis + 1]
    before = (*sizes[: axis + 1], 1, *sizes[axis + 2 :])
    after = (*sizes[:axis], result[axis], *sizes[axis + 2 :])
    if (
        not isinstance(times, int)
        or not isinstance(sizes[axis], int)
        or sizes[axis] * times != result[axis]
        or not _equal(extents_of(narrow), before)
        or not _equal(result, after)
    ):
        return operand, heads_first, 1
    plain = (*sizes[: axis + 1], *sizes[axis + 2 :])
    view: Any = values.get(narrow)
    if operator_of(view) not in _VIEWS or not _equal(extents_of(view.args[0]), plain):
        return operand, heads_first, 1
    bare: Any = view.args[0]
    turned: Any = values.get(bare)
    if operator_of(turned) == "relax.permute_dims" and turned.attrs.axes is not None:
        order = tuple(int(each) for each in turned.attrs.axes)
        if order == (0, 2, 1, 3) and isinstance(turned.args[0], relax.Var):
            return turned.args[0], not heads_first, times
    return bare, heads_first, times


def _equal(one: tuple[Extent, ...], other: tuple[Extent, ...]) -> bool:
    return len(one) == len(other) and all(
        a == b
        if isinstance(a, int) or isinstance(b, int)
        else bool(tvm_ffi.structural_equal(a, b, map_free_vars=False))
        for a, b in zip(one, other, strict=True)
    )


def _half(selection: Selection, operand: relax.Expr, name: str) -> relax.Expr:
    new = selection.rewriter.map(operand)
    return selection.rewriter.emit(_op.astype(new, selection.dtype), name)
