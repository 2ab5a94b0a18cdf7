"""From a scheduled PrimFunc to flat loops over flat memory."""

from __future__ import annotations

from tvm import ir, s_tir, tirx


def lower_function(function: tirx.PrimFunc) -> tirx.PrimFunc:
    """Remove blocks, flatten buffers to one dimension, narrow indices to int32, simplify."""
    module = ir.IRModule({"main": function})
    for step in (
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
        s_tir.transform.RewriteUnsafeSelect(),
        tirx.transform.CommonSubexprElim(),
    ):
        module = step(module)
    return module["main"]
