"""Records of tuning for the CPU targets: which CPU they are for, and which layers they concern."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from tvm import ir, relax

from ...passes.rewrite import Rewriter
from ...schedules.tuning.choices import Recorded, Site
from ...schedules.tuning.database import Cpu, Database
from ...schedules.tuning.space import fits
from ..vm.layers import PASSING
from ..vm.link import link
from .target import CpuTarget, tvm_target
from .threads import default_threads


def cpu_of(target: CpuTarget) -> Cpu:
    """The CPU that records are kept for; only this machine's has a number of cores."""
    return Cpu.of(tvm_target(target), 0 if target.mcpu else default_threads())


def recorded(target: CpuTarget, folder: Path | None) -> Recorded:
    """Sizes from the records in a folder, or none.

    Raises:
        FewbitsError: ``unreadable-file``.
    """
    if folder is None:
        return Recorded({}, fits)
    records, lost = Database(folder).read(cpu_of(target))
    return Recorded({record.workload: record.sizes for record in records}, fits, lost)


def layers_of(module: ir.IRModule, sites: Iterable[Site]) -> list[str]:
    """The names of the layers that some sites compute, in the module's order.

    Args:
        module: before kernels were chosen.
        sites: kernels know their layer; products in loops know only its weight.
    """
    names, weights = set(), []
    for site in sites:
        names.update([] if site.layer is None else [site.layer])
        weights += [one for one in site.weights if len(one.value.shape) > 1]
    found: list[str] = []
    carriers: list[Any] = list(weights)
    for var, value in Rewriter(module).bindings:
        if not isinstance(value, relax.Call):
            continue
        reads = any(argument.same_as(one) for argument in value.args for one in carriers)
        if reads and str(getattr(value.op, "name", "")) in PASSING:
            carriers.append(var)
        elif reads or var.name in names:
            found.append(var.name)
    return found


def kernel_linker(target: CpuTarget) -> Callable[..., None]:
    """Links a kernel alone: ``linker(module, path=...)``."""
    return functools.partial(link, machine=target.architecture)
