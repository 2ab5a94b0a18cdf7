"""Where the threads of a kernel meet: barriers, and shuffles, where a warp exchanges registers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tvm_ffi
from tvm import ir, tirx

#: What the names of all shuffles begin with; what follows says which lane is read.
SHUFFLES = "tirx.tvm_warp_shuffle"
_BARRIER = "tirx.tvm_storage_sync"


def called(value: Any) -> str:
    """The name of the operator that an expression calls, or an empty string."""
    return str(getattr(value.op, "name", "")) if isinstance(value, ir.Call) else ""


def is_barrier(statement: Any) -> bool:
    """Whether the statement is a barrier of the block."""
    return isinstance(statement, tirx.Evaluate) and called(statement.value) == _BARRIER


def is_shuffle(statement: Any) -> bool:
    """Whether the statement stores what another lane has."""
    return isinstance(statement, tirx.BufferStore) and called(statement.value).startswith(SHUFFLES)


def meets(statement: Any) -> bool:
    """Whether threads meet anywhere inside."""
    found: list[bool] = []

    def visit(call: ir.Call) -> None:
        if called(call) == _BARRIER or called(call).startswith(SHUFFLES):
            found.append(True)

    tvm_ffi.structural_walk(statement, [(ir.Call, visit)])
    return bool(found)


def flat(statement: Any) -> list[Any]:
    """The statements of nested sequences in order."""
    if isinstance(statement, tirx.SeqStmt):
        return [each for part in statement.seq for each in flat(part)]
    return [statement]


def sequence(statements: Sequence[Any]) -> Any:
    """Statements as one."""
    if not statements:
        return tirx.Evaluate(0)
    return statements[0] if len(statements) == 1 else tirx.SeqStmt(list(statements))


def scope(buffer: Any) -> str:
    """Where a buffer is, e.g. ``shared``."""
    return str(buffer.scope()) if callable(getattr(buffer, "scope", None)) else str(buffer.ty.scope)
