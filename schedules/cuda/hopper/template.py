"""The second tier's template for products of equal or both FP8 types on Hopper."""

from __future__ import annotations

from collections.abc import Iterator

from ..architecture import Architecture
from ..intrinsics import wgmma
from ..problem import Linear
from ..template import Kernel
from ..weight_format import Dense
from . import model
from .kernel import write
from .plan import Plan
from .sizes import Sizes, flaw
from .space import every


class Wgmma:
    """Products by warpgroups, fed by the copy engine: sm_90a, dense weights."""

    name = "wgmma"

    def refusal(self, problem: Linear, architecture: Architecture) -> str | None:
        """Why there is no kernel, or None."""
        if not architecture.has_wgmma:
            return f"{architecture.name} has no wgmma"
        if not isinstance(problem.weight, Dense):
            return "the weight is not dense"
        if not wgmma.supported(problem.activation, problem.weight.dtype):
            return f"there is no product of {problem.activation} and {problem.weight.dtype}"
        kind = wgmma.Kind(problem.activation, problem.weight.dtype)
        if problem.inputs * kind.item % 16:
            return "rows are no multiple of 16 bytes"
        if max(problem.inputs, problem.outputs) >= 2**31:
            return "the copy engine's coordinates have 32 bits"
        return None

    def space(self, problem: Linear, architecture: Architecture) -> Iterator[Sizes]:
        """Every choice that fits, in a fixed order."""
        for sizes in every(problem):
            if flaw(problem, architecture, sizes) is None:
                yield sizes

    def rule(self, problem: Linear, architecture: Architecture, rows: int) -> Sizes | None:
        """The best of a few good shapes, by the cost model."""
        return model.best(problem, architecture, rows)

    def seconds(
        self, problem: Linear, architecture: Architecture, rows: int, sizes: Sizes
    ) -> float:
        """The cost model."""
        return model.seconds(problem, architecture, rows, sizes)

    def build(self, problem: Linear, architecture: Architecture, sizes: Sizes, name: str) -> Kernel:
        """The kernel.

        Raises:
            ValueError: these sizes make no kernel for this product.
        """
        reason = self.refusal(problem, architecture) or flaw(problem, architecture, sizes)
        if reason is not None:
            raise ValueError(f"{sizes}: {reason}")
        plan = Plan(problem, architecture, sizes)
        function = write(plan, name)
        return Kernel(name, function, architecture, "tirx", plan.kind.machine)
