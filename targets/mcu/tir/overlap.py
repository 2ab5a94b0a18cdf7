"""How far a generated function's output may share memory with its inputs."""

from __future__ import annotations

import dataclasses

import tvm_ffi
from tvm import ir, tirx
from tvm.ir import prim

from ..program import DTYPE_BYTES

#: C lets these alias every other type.
_CHARACTERS = frozenset({"int8", "uint8", "bool"})


@dataclasses.dataclass(frozen=True)
class _Access:
    buffer: ir.Var
    index: ir.Expr


def overlap_distances(function: tirx.PrimFunc) -> dict[int, int]:
    """For a lowered function that is one flat loop over one output: by parameter, the least
    distance in bytes by which the output may start before that input.

    A parameter that is read other than element by element in step with the output has no entry;
    neither has one whose type C's aliasing rule keeps apart from the output's.
    """
    views: dict[ir.Var, ir.Var] = {}
    body = function.body
    statements = list(body.seq) if isinstance(body, tirx.SeqStmt) else [body]
    while statements and isinstance(statements[0], tirx.DeclBuffer):
        views[statements[0].buffer] = statements[0].data.args[0]
        statements = statements[1:]
    if len(statements) != 1 or not isinstance(statements[0], tirx.For):
        return {}
    loop = statements[0]
    stores = _stores(loop)
    if len(stores) != 1 or not _is(stores[0].index, loop.loop_var):
        return {}
    output = views.get(stores[0].buffer, stores[0].buffer)
    reads: dict[int, bool] = {}
    positions = {parameter: i for i, parameter in enumerate(function.params)}

    def read(load: ir.TensorLoad) -> None:
        parameter = positions.get(views.get(load.source, load.source))
        if parameter is not None:
            in_step = len(load.indices) == 1 and _is(load.indices[0], loop.loop_var)
            reads[parameter] = reads.get(parameter, True) and in_step

    tvm_ffi.structural_walk(loop.body, [(ir.TensorLoad, read)])
    distances = {}
    for parameter, in_step in reads.items():
        dtype, result = (str(function.params[parameter].ty.dtype), str(output.ty.dtype))
        may_alias = dtype == result or dtype in _CHARACTERS or result in _CHARACTERS
        if in_step and may_alias:
            growth = DTYPE_BYTES[result] - DTYPE_BYTES[dtype]
            distances[parameter] = max(growth, 0) * int(loop.extent)
    return distances


def _stores(statement: tirx.Stmt) -> list[_Access]:
    found: list[_Access] = []

    def store(node: tirx.BufferStore) -> None:
        index = node.indices[0] if len(node.indices) == 1 else prim.IntImm("int32", -1)
        found.append(_Access(node.buffer, index))

    tvm_ffi.structural_walk(statement, [(tirx.BufferStore, store)])
    return found


def _is(expression: ir.Expr, variable: ir.Var) -> bool:
    return isinstance(expression, ir.Var) and expression.same_as(variable)


def divides(function: tirx.PrimFunc) -> bool:
    """Whether indices are taken apart by division, as they are when unlike loops are fused."""
    found = tvm_ffi.structural_walk(
        function.body,
        [((prim.FloorDiv, prim.FloorMod), lambda _: tvm_ffi.VisitInterrupt(True))],
    )
    return found is not None
