"""Where in memory an index expression points, and how it moves along a loop."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tvm_ffi
from tvm import ir, tirx
from tvm.ir import prim
from tvm.sym import Analyzer

from .program import loads, substitute, uses

#: Their conditions would have to be the same in all lanes.
_GUARDS = frozenset({"tirx.if_then_else", "tirx.likely"})


def flat_offset(buffer: Any, indices: Sequence[Any]) -> Any:
    """The position of an element in a row-major buffer, in elements."""
    offset: Any = prim.IntImm("int64", 0)
    for index, extent in zip(indices, buffer.ty.shape, strict=True):
        offset = offset * extent + tirx.Cast("int64", index)
    return offset


def step(buffer: Any, indices: Sequence[Any], variable: Any) -> int | None:
    """By how many elements the access moves when the variable grows by one; None if it varies."""
    offset = flat_offset(buffer, indices)
    following = substitute(offset, {variable: variable + 1})
    difference = Analyzer().simplify(following - offset)
    return int(difference.value) if isinstance(difference, prim.IntImm) else None


def vectorizable(value: Any, variable: Any) -> bool:
    """Whether consecutive values of the variable read consecutive (or the same) elements.

    Expressions with conditions on the variable are better left to the compiler's own analysis.
    """
    if guarded(value, variable):
        return False
    return all(step(load.source, load.indices, variable) in (0, 1) for load in loads(value))


def guarded(value: Any, variable: Any) -> bool:
    """Whether a condition inside the expression depends on the variable."""
    found: list[bool] = []

    def visit(call: ir.Call) -> None:
        if getattr(call.op, "name", "") in _GUARDS and uses(call.args[0], variable):
            found.append(True)

    tvm_ffi.structural_walk(value, [(ir.Call, visit)])
    return bool(found)


def reads_along(value: Any, variable: Any) -> bool:
    """Whether some element read moves by exactly one as the variable grows."""
    return any(
        step(load.source, load.indices, variable) == 1
        for load in loads(value)
        if any(uses(index, variable) for index in load.indices)
    )
