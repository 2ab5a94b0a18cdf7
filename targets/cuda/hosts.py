"""Host functions that pick a product's kernel, as they stand in a finished library.

By name, TVM finds functions of a library's imports only; in a finished library the kernels' own
host functions are in the same file. So they are called by their symbols, which the linker knows.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import tvm_ffi
from tvm import ir, tirx

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
        body = tvm_ffi.structural_map(
            function.body, [(ir.Call, lambda call: _by_symbol(call, kernels))]
        )
        module.update_func(variable, function.with_body(body).with_attr("op_pattern", _OPAQUE))
    return module


def _by_symbol(call: Any, kernels: Collection[str]) -> Any:
    if not isinstance(call.op, ir.Op) or call.op.name != "tirx.tvm_call_packed":
        return call
    name = str(call.args[0].value)
    if name not in kernels:
        return call
    symbol = ir.StringImm(_PREFIX + name)
    arguments = [symbol, *call.args[1:]]
    return ir.Call(ir.Op.get("tirx.tvm_call_cpacked"), arguments, ret_ty=call.ty)
