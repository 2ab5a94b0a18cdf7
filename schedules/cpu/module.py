"""The entry: every PrimFunc of a Relax module gets its loops."""

from __future__ import annotations

from tvm import ir, relax, tirx
from tvm import target as tvm_target

from .function import SCHEDULED, schedule_function
from .machine import Machine


def schedule_module(module: ir.IRModule, target: tvm_target.Target) -> ir.IRModule:
    machine = Machine.of(target)
    module = relax.transform.RewriteDataflowReshape()(module)
    scheduled = ir.IRModule(dict(module.functions), attrs=module.attrs)
    for variable, function in module.functions.items():
        if not isinstance(function, tirx.PrimFunc) or SCHEDULED in (function.attrs or {}):
            continue
        faster = schedule_function(function, machine)
        if faster is not None:
            scheduled[variable] = faster
    return scheduled
