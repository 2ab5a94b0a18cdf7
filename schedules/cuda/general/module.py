"""The entry: every PrimFunc of a Relax module that has no schedule gets threads."""

from __future__ import annotations

from tvm import ir, relax, tirx

from ..architecture import Architecture
from .function import SCHEDULED, schedule_function
from .merge import merge_rows


def schedule_module(module: ir.IRModule, architecture: Architecture) -> ir.IRModule:
    """Give every unscheduled PrimFunc thread bindings, after joining neighbours that share rows.

    Args:
        module: after ``LegalizeOps``, ``FuseOps`` and ``FuseTIR`` with this project's
            legalizations; functions with the attribute ``tirx.is_scheduled`` stay as they are.
            Sizes may be symbolic.
        architecture: what the kernels are for.

    Returns:
        The module; functions for the host alone (shape functions) are not touched.
    """
    module = merge_rows(relax.transform.RewriteDataflowReshape()(module))
    updates = {
        variable: schedule_function(function, architecture)
        for variable, function in module.functions.items()
        if isinstance(function, tirx.PrimFunc) and SCHEDULED not in (function.attrs or {})
    }
    result = ir.IRModule(dict(module.functions.items()), attrs=module.attrs)
    for variable, function in updates.items():
        result.update_func(variable, function)
    return result
