"""From a scheduled PrimFunc to flat loops over flat memory."""

from __future__ import annotations

import tvm_ffi
from tvm import ir, s_tir, tirx
from tvm.ir import prim

from .guards import tighten

_FLATTEN = (
    s_tir.transform.CanonicalizeLoop(),
    s_tir.transform.LowerInitBlock(),
    s_tir.transform.PlanAndUpdateBufferAllocationLocation(),
    s_tir.transform.ConvertBlocksToOpaque(),
    s_tir.transform.CompactBufferAllocation(),
    s_tir.transform.LowerMatchBuffer(),
    s_tir.transform.StmtSimplify(),
    s_tir.transform.LowerOpaqueBlock(),
    tirx.transform.FlattenBuffer(),
    tirx.transform.NarrowDataType(32),
    tirx.transform.UnrollLoop(),
    tirx.transform.StmtSimplify(),
    tirx.transform.RemoveNoOp(),
)
_SIMPLIFY = (
    tirx.transform.StmtSimplify(),
    s_tir.transform.RewriteUnsafeSelect(),
    tirx.transform.CommonSubexprElim(),
)


def lower_function(function: tirx.PrimFunc) -> tirx.PrimFunc:
    """Remove blocks, flatten buffers to one dimension, narrow indices to int32, simplify."""
    flat = _run(function, _FLATTEN)
    return _run(tighten(_without_offsets(flat)), _SIMPLIFY)


def _without_offsets(function: tirx.PrimFunc) -> tirx.PrimFunc:
    """Buffers of hand-written legalizations may start at any offset; ours start at 0."""
    offsets = [p.ty.elem_offset for p in function.params if isinstance(p.ty.elem_offset, ir.Var)]
    if not offsets:
        return function

    def zero(variable: ir.Var) -> ir.Expr:
        if any(variable.same_as(offset) for offset in offsets):
            return prim.IntImm(str(variable.ty.dtype), 0)
        return variable

    return function.with_body(tvm_ffi.structural_map(function.body, [(ir.Var, zero)]))


def _run(function: tirx.PrimFunc, steps: tuple[ir.transform.Pass, ...]) -> tirx.PrimFunc:
    module = ir.IRModule({"main": function})
    for step in steps:
        module = step(module)
    return module["main"]
