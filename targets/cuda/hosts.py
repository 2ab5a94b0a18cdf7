"""Host functions that pick a product's kernel, as they stand in a finished library.

By name, TVM finds functions of a library's imports only; in a finished library the kernels' own
host functions are in the same file. So they are called by their symbols, which the linker knows.
LLVM's back end declares a symbol anew at each call, so each kernel is called in one place.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

from tvm import ir, s_tir, tirx

#: What TVM puts before the names of functions that take packed arguments.
_PREFIX = "__tvm_ffi_"
#: TVM's pattern of functions that nothing may be fused with.
_OPAQUE = 8


def is_host(function: Any) -> bool:
    """Whether a PrimFunc came with its kernels and has nothing to be scheduled."""
    return isinstance(function, tirx.PrimFunc) and bool(function.attrs.get("tirx.is_scheduled"))


def prepare_hosts(module: ir.IRModule, kernels: Collection[str]) -> ir.IRModule:
    """The module with its host functions calling kernels by symbol; nothing is fused with them.

    Args:
        module: anything.
        kernels: names of functions that will be linked with it.
    """
    found = {v: f for v, f in module.functions_items() if is_host(f)}
    for variable, function in found.items():
        # TVM looks for a reshape in functions of one operand, and expects a block there.
        root = s_tir.SBlock([], [], [], "root", _once(function.body, kernels))
        body = s_tir.SBlockRealize([], True, root)
        module.update_func(variable, function.with_body(body).with_attr("op_pattern", _OPAQUE))
    return module


def _once(body: Any, kernels: Collection[str]) -> Any:
    """``if a: k() else: if b: l() else: k()`` with each kernel called once, by symbol."""
    leaves = list(_leaves(body, None))
    calls: dict[str, Any] = {}
    conditions: dict[str, Any] = {}
    for condition, statement in leaves:
        name = _callee(statement)
        if name is None or name not in kernels:
            return body
        if name not in calls:
            calls[name], conditions[name] = statement, condition
        elif condition is not None and conditions[name] is not None:
            conditions[name] = tirx.Or(conditions[name], condition)
    statements = []
    for name, statement in calls.items():
        call = tirx.Evaluate(_by_symbol(statement.value, name))
        condition = conditions[name]
        statements.append(call if condition is None else tirx.IfThenElse(condition, call, None))
    return tirx.stmt_seq(*statements)


def _leaves(statement: Any, condition: Any) -> Iterator[tuple[Any, Any]]:
    """Statements of a tree of branches, each with what must hold for it."""
    if isinstance(statement, tirx.SeqStmt):
        for each in statement.seq:
            yield from _leaves(each, condition)
    elif isinstance(statement, tirx.IfThenElse):
        yield from _leaves(statement.then_case, _both(condition, statement.condition))
        if statement.else_case is not None:
            yield from _leaves(statement.else_case, _both(condition, tirx.Not(statement.condition)))
    else:
        yield condition, statement


def _both(one: Any, other: Any) -> Any:
    return other if one is None else tirx.And(one, other)


def _callee(statement: Any) -> str | None:
    """The function that a statement calls by name."""
    call: Any = statement.value if isinstance(statement, tirx.Evaluate) else None
    if not isinstance(call, ir.Call) or not isinstance(call.op, ir.Op):
        return None
    return str(call.args[0].value) if call.op.name == "tirx.tvm_call_packed" else None


def _by_symbol(call: Any, name: str) -> Any:
    arguments = [ir.StringImm(_PREFIX + name), *call.args[1:]]
    return ir.Call(ir.Op.get("tirx.tvm_call_cpacked"), arguments, ret_ty=call.ty)
