"""From a compressed module to a TVM executable: the whole road, one list a stage."""

from __future__ import annotations

from collections.abc import Callable

import tvm
from tvm import ir, relax
from tvm.relax import transform

from ...schedules.cpu import schedule_module
from ...schedules.tuning.choices import Choices
from ..vm.half import refuse_bfloat16, widen_half
from ..vm.legalize import LEGALIZATIONS
from ..vm.limits import check_sizes
from ..vm.shape_functions import order_stores
from .patterns import select_kernels

Step = Callable[[ir.IRModule], ir.IRModule]


def choose_kernels(
    module: ir.IRModule, target: tvm.target.Target, choices: Choices | None = None
) -> ir.IRModule:
    """Few-bit patterns become calls of kernels that read the packed weights themselves.

    `choices` decides about the sizes of kernels, here and below; None: their rules.

    Raises:
        FewbitsError: ``unsupported-dtype`` for bfloat16.
    """
    refuse_bfloat16(module)
    steps: list[Step] = [
        widen_half,
        transform.DecomposeOpsForInference(),
        lambda m: select_kernels(m, target, choices),
    ]
    return _apply(steps, module, target)


def lower_to_tir(
    module: ir.IRModule, target: tvm.target.Target, choices: Choices | None = None
) -> ir.IRModule:
    """Every operator becomes loops; neighbours share them; the loops get a schedule.

    Constants stay arguments and nothing is folded from here on: folding would expand weights.
    """
    steps: list[Step] = [
        transform.LegalizeOps(LEGALIZATIONS),
        transform.AnnotateTIROpPattern(),
        transform.FuseOps(),
        transform.FuseTIR(),
        transform.DeadCodeElimination(),
        lambda m: schedule_module(m, target, choices),
    ]
    return _apply(steps, module, target)


def make_executable(module: ir.IRModule, target: tvm.target.Target) -> tvm.runtime.Executable:
    """Memory is planned, the graph becomes byte code, the loops machine code.

    The weights go into the executable's pool of constants as they are, never through LLVM.
    """
    to_calls: list[ir.transform.Pass] = [
        transform.RewriteDataflowReshape(),
        transform.ToNonDataflow(),
        transform.RemovePurityChecking(),
        transform.CallTIRRewrite(),
    ]
    to_byte_code: list[ir.transform.Pass] = [
        transform.StaticPlanBlockMemory(),
        transform.LowerAllocTensor(),
        transform.KillAfterLastUse(),
        transform.LowerRuntimeBuiltin(),
        transform.ComputePrimValue(),
        transform.VMShapeLower(),
        order_stores(),
        transform.AttachGlobalSymbol(),
    ]
    with target:
        module = check_sizes(ir.transform.Sequential(to_calls)(module))
    return relax.build(module, target=target, relax_pipeline=ir.transform.Sequential(to_byte_code))


def _apply(steps: list[Step], module: ir.IRModule, target: tvm.target.Target) -> ir.IRModule:
    with target:
        for step in steps:
            module = step(module)
    return module
