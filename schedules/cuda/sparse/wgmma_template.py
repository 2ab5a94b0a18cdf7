"""The template of ``wgmma.sp``: which products it takes, which sizes it offers."""

from __future__ import annotations

from collections.abc import Iterator

from ..architecture import Architecture
from ..intrinsics.mma import COPY
from ..problem import Linear
from ..template import Kernel
from . import wgmma_model as model
from .mma_template import refusal
from .wgmma_kernel import write
from .wgmma_plan import SparsePlan, SparseSizes, flaw


class SparseWgmma:
    """2:4 weights by warpgroups, fed by the copy engine: sm_90a."""

    name = "sparse-wgmma"

    def refusal(self, problem: Linear, architecture: Architecture) -> str | None:
        """Why there is no kernel, or None."""
        if not architecture.has_wgmma:
            return f"{architecture.name} has no wgmma"
        return refusal(problem, COPY)

    def space(self, problem: Linear, architecture: Architecture) -> Iterator[SparseSizes]:
        """Every choice that fits, in a fixed order."""
        for sizes in model.every(problem):
            if flaw(problem, architecture, sizes) is None:
                yield sizes

    def rule(self, problem: Linear, architecture: Architecture, rows: int) -> SparseSizes | None:
        """The best of a few good shapes, by the cost model."""
        return model.best(problem, architecture, rows)

    def seconds(
        self, problem: Linear, architecture: Architecture, rows: int, sizes: SparseSizes
    ) -> float:
        """The cost model."""
        return model.seconds(problem, architecture, rows, sizes)

    def build(
        self, problem: Linear, architecture: Architecture, sizes: SparseSizes, name: str
    ) -> Kernel:
        """The kernel. Sums are exact for int8, and in float32 otherwise.

        Raises:
            ValueError: these sizes make no kernel for this product.
        """
        reason = self.refusal(problem, architecture) or flaw(problem, architecture, sizes)
        if reason is not None:
            raise ValueError(f"{sizes}: {reason}")
        plan = SparsePlan(problem, architecture, sizes)
        instruction = f"{plan.kind.machine}.SP"
        return Kernel(name, write(plan, name), architecture, "tirx", instruction)
