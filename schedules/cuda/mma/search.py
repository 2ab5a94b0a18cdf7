"""MetaSchedule over the schedule's tiles: its space, what is valid in it, and what changes a tile.

TVM's own check of GPU code runs a list of passes that fails on tensor-core schedules, so it rejects
every one of them. Here is the same check on the list without what fails.
"""

from __future__ import annotations

from typing import Any

import tvm
import tvm_ffi
from tvm.ir.utils import derived_object
from tvm.s_tir import analysis
from tvm.s_tir import meta_schedule as ms
from tvm.s_tir import transform as lower
from tvm.tirx import transform

from ..architecture import Architecture
from .scheduled import OPTIONS, schedule

_BUILD = "fewbits.mma.build"


def space_generator(dtype: str, architecture: Architecture) -> ms.space_generator.ScheduleFn:
    """The search space of `scheduled.product`'s functions, for ``ms.tune_tir(space=...)``.

    Args:
        dtype: of the operands.
        architecture: whose limits count.
    """

    def sampled(sch: tvm.s_tir.Schedule) -> None:
        schedule(sch, dtype)

    return ms.space_generator.ScheduleFn(
        sampled,
        sch_rules=[],
        postprocs=[ms.postproc.DisallowDynamicLoop(), fits(architecture)],
        mutator_probs={ms.mutator.MutateTileSize(): 1.0},
    )


def builder(workers: int = 1) -> ms.builder.LocalBuilder:
    """What compiles a search's candidates, in processes of its own, as `OPTIONS` says."""
    return ms.builder.LocalBuilder(max_workers=workers, f_build=_BUILD, initializer=register_build)


def register_build() -> None:
    """Make the build known to TVM in this process."""
    tvm_ffi.register_global_func(_BUILD, _build, override=True)


def _build(module: Any, target: Any, _parameters: Any) -> Any:
    with tvm.transform.PassContext(config=dict(OPTIONS)):
        return tvm.tirx.build(module, target=target)


def fits(architecture: Architecture) -> Any:
    """A post-processor that keeps what an architecture can launch."""

    @derived_object
    class Fits(ms.postproc.PyPostproc):
        """Threads and shared memory within the architecture's limits."""

        def _initialize_with_tune_context(self, context: ms.TuneContext) -> None:
            """Nothing of the context is needed."""

        def apply(self, sch: tvm.s_tir.Schedule) -> bool:
            """Whether the schedule's code fits."""
            return launchable(sch.mod["main"], architecture)

        def clone(self) -> Any:
            """Another one."""
            return fits(architecture)

    return Fits()


def launchable(function: Any, architecture: Architecture) -> bool:
    """Whether a scheduled function's threads and memory are within an architecture's limits."""
    target = architecture.tvm_target()
    marked = function.with_attr("target", target).with_attr("tirx.noalias", True)
    try:
        lowered = tvm.transform.Sequential(_passes())(tvm.IRModule({"main": marked}))
    except tvm.error.InternalError:
        # Passes give up on code that no GPU could run: loops bound to threads that disagree.
        return False
    limits = {
        "max_shared_memory_per_block": architecture.shared_memory,
        "max_threads_per_block": 1024,
        "max_vthread": 8,
        "max_vector_bytes": 16,
    }
    return bool(analysis.verify_gpu_code(lowered["main"], limits))


def _passes() -> list[Any]:
    return [
        lower.LowerCrossThreadReduction(),
        lower.LowerInitBlock(),
        lower.PlanAndUpdateBufferAllocationLocation(),
        lower.ConvertBlocksToOpaque(),
        lower.LiftThreadBinding(),
        lower.ManifestSharedMemoryLocalStage(),
        lower.CompactBufferAllocation(),
        transform.StmtSimplify(),
        lower.LowerAutoCopy(),
        lower.UnifyThreadBinding(),
        lower.LowerMatchBuffer(),
        lower.InjectSoftwarePipeline(),
        lower.LowerOpaqueBlock(),
        transform.FlattenBuffer(),
        transform.BF16ComputeLegalize(),
        transform.NarrowDataType(32),
        transform.StmtSimplify(),
        transform.VectorizeLoop(True),
        lower.InjectVirtualThread(),
        lower.InjectDoubleBuffer(),
    ]
