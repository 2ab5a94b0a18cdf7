"""The CPU targets: which instructions a library may use, and how LLVM and the linker name them."""

from __future__ import annotations

import dataclasses
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from ..base import Kind, Request, Target

if TYPE_CHECKING:
    import tvm
    from tvm import ir

    from .product import CpuProduct
    from .runner import LibraryRunner

#: What `platform.machine` calls the same machine on different systems.
_MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}


@dataclasses.dataclass(frozen=True)
class CpuTarget(Target):
    """A kind of CPU.

    Attributes:
        name: as in ``--target``.
        machine: instruction set as `platform.machine` names it, empty for this machine's.
        mcpu: LLVM's name of the CPU or level, empty for this machine's.
        features: LLVM's names of further features that every such CPU has.
        description: one line for ``fewbits targets``.
    """

    name: str
    machine: str
    mcpu: str
    features: tuple[str, ...]
    description: str

    kind: ClassVar[Kind] = "cpu"
    keeps_symbols: ClassVar[bool] = True
    oracle: ClassVar[str] = "module"

    def lower(self, module: ir.IRModule, request: Request) -> CpuProduct:
        """Integers where everything can be, kernels, TIR."""
        from .product import make_product

        return make_product(module, self, request)

    def open(
        self,
        folder: Path,
        manifest: Mapping[str, Any],
        *,
        strict: bool = False,
        threads: int | None = None,
    ) -> LibraryRunner:
        """The library in an artifact's folder, loaded into this process.

        Raises:
            FewbitsError: ``no-such-file``, ``wrong-machine``, ``bad-library``, ``unknown-option``.
        """
        from .runner import LibraryRunner

        del strict
        return LibraryRunner(folder, manifest, threads)

    @property
    def architecture(self) -> str:
        """Instruction set as `platform.machine` names it on Linux."""
        return self.machine or this_machine()

    @property
    def runs_here(self) -> bool:
        """Whether this CPU has all that the code uses."""
        from .features import missing_here

        return not missing_here(self.architecture, required_features(self))


def this_machine() -> str:
    """The instruction set of this machine."""
    machine = platform.machine().lower()
    return _MACHINES.get(machine, machine)


def tvm_target(target: CpuTarget) -> tvm.target.Target:
    """The target as TVM knows it."""
    import tvm

    from .features import host_cpu

    mcpu, features = (target.mcpu, target.features) if target.mcpu else host_cpu()
    options: dict[str, Any] = {"kind": "llvm", "mcpu": mcpu}
    if target.machine:
        options["mtriple"] = f"{target.machine}-linux-gnu"
    if features:
        options["mattr"] = [f if f[0] in "+-" else f"+{f}" for f in features]
    return tvm.target.Target(options)


def required_features(target: CpuTarget) -> list[str]:
    """LLVM's names of the instruction set extensions that code for this target may use."""
    from .features import instructions_of

    return instructions_of(tvm_target(target))


TARGETS: dict[str, CpuTarget] = {
    target.name: target
    for target in (
        CpuTarget("cpu", "", "", (), "shared library for this machine's CPU"),
        CpuTarget(
            "x86-64-v3", "x86_64", "x86-64-v3", (), "shared library: AVX2 and FMA (2013 and later)"
        ),
        CpuTarget(
            "x86-64-v4",
            "x86_64",
            "x86-64-v4",
            ("avx512vnni",),
            "shared library: AVX-512 with int8 dot products (VNNI)",
        ),
        CpuTarget(
            "aarch64",
            "aarch64",
            "generic",
            ("v8.2a", "dotprod"),
            "shared library: Armv8.2 with int8 dot products, cross-built",
        ),
    )
}
