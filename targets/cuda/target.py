"""The GPU targets: which generations a library has code for."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from ...schedules.cuda.architecture import ARCHITECTURES, Architecture
from ..base import Kind, Request, Target

if TYPE_CHECKING:
    from tvm import ir

    from .product import CudaProduct
    from .runner import CudaRunner


@dataclasses.dataclass(frozen=True)
class CudaTarget(Target):
    """A set of generations of GPUs.

    Attributes:
        name: as in ``--target``.
        only: the architecture's name; empty for the GPU found here, or all where there is none.
        description: one line for ``fewbits targets``.
    """

    name: str
    only: str
    description: str

    kind: ClassVar[Kind] = "cuda"
    keeps_symbols: ClassVar[bool] = True
    oracle: ClassVar[str] = "module"
    float_types: ClassVar[tuple[str, ...]] = ("float16", "bfloat16", "float32")

    def lower(self, module: ir.IRModule, request: Request) -> CudaProduct:
        """Integers where everything can be, kernels for each architecture, TIR."""
        from .product import make_product

        return make_product(module, self, request)

    def open(
        self,
        folder: Path,
        manifest: Mapping[str, Any],
        *,
        strict: bool = False,
        threads: int | None = None,
    ) -> CudaRunner:
        """The library in an artifact's folder, loaded into this process and onto the GPU.

        Raises:
            FewbitsError: ``no-such-file``, ``no-gpu``, ``wrong-machine``, ``bad-library``,
                ``out-of-memory``, ``unknown-option`` for a number of threads.
        """
        from .runner import CudaRunner, refuse_threads

        del strict
        refuse_threads(threads)
        return CudaRunner(folder, manifest)

    def architectures(self) -> list[Architecture]:
        """What code is made for, the newest first."""
        if self.only:
            return [ARCHITECTURES[self.only]]
        from .devices import found_architecture

        found = found_architecture()
        return list(reversed(ARCHITECTURES.values())) if found is None else [found]

    @property
    def runs_here(self) -> bool:
        """Whether there is a GPU, or an emulated one, that the code is for."""
        from .devices import found_device, runnable

        device = found_device()
        names = [architecture.name for architecture in self.architectures()]
        return device is not None and runnable(names, device.capability) is not None

    @property
    def absence(self) -> str:
        """Why nothing was run."""
        from .devices import found_device

        return "no GPU here" if found_device() is None else f"the GPU here is not {self.name}"


TARGETS: dict[str, CudaTarget] = {
    target.name: target
    for target in (
        CudaTarget(
            "cuda", "", "shared library for the GPU here, or where there is none: sm_80 to sm_90a"
        ),
        CudaTarget("cuda-sm80", "sm_80", "shared library: A100 (Ampere)"),
        CudaTarget("cuda-sm89", "sm_89", "shared library: L4, L40, RTX 40 (Ada), with FP8"),
        CudaTarget(
            "cuda-sm90a", "sm_90a", "shared library: H100, H200 (Hopper), with wgmma and TMA"
        ),
    )
}
