"""The functions that compute symbolic sizes at run time, with their statements in one order.

TVM's `VMShapeLower` emits them in the order of a hash table of addresses, so that two builds of one
module differed in these few instructions. Each statement stores one size in a slot of its own, from
slots that are filled before, so any order is right.
"""

from __future__ import annotations

from typing import Any

from tvm import ir, tirx


def order_stores() -> ir.transform.Pass:
    """The pass that sorts the stores of functions made of nothing but stores of sizes."""

    def run(module: ir.IRModule, _context: Any) -> ir.IRModule:
        for variable, function in module.functions_items():
            ordered = _ordered(function)
            if ordered is not None:
                module.update_func(variable, ordered)
        return module

    return ir.transform.module_pass(run, opt_level=0, name="OrderShapeStores")


def _ordered(function: Any) -> tirx.PrimFunc | None:
    """The function with its stores by slot; None where it is no such function."""
    if not isinstance(function, tirx.PrimFunc) or not isinstance(function.body, tirx.SeqStmt):
        return None
    stores = list(function.body.seq)
    if not all(_slot(store) is not None for store in stores):
        return None
    stores.sort(key=lambda store: _slot(store) or 0)
    return function.with_body(tirx.SeqStmt(stores))


def _slot(statement: Any) -> int | None:
    """The constant place that a statement stores to."""
    if not isinstance(statement, tirx.BufferStore) or len(statement.indices) != 1:
        return None
    index = statement.indices[0]
    return int(index.value) if isinstance(index, tirx.IntImm) else None
