"""The template of convolutions without tensor cores: what it takes, and what sizes cost."""

from __future__ import annotations

import math
from collections.abc import Iterator

from ..architecture import Architecture
from ..cost import Work, seconds
from ..template import Kernel
from .problem import BYTES, Convolution
from .window_sizes import WindowSizes, per_word, space
from .windows import weight_array, window_kernel, window_weight


class Windows:
    """Convolutions of any groups, a few results to a thread."""

    name = "conv window"
    pack = staticmethod(window_weight)

    def refusal(self, problem: Convolution, architecture: Architecture) -> str | None:
        """Types that it does not read."""
        del architecture
        if problem.activation not in BYTES:
            return f"no kernel reads {problem.activation}"
        return None

    def weight(self, problem: Convolution) -> tuple[tuple[int, ...], str]:
        """Shape and dtype of the weight that kernels read."""
        return weight_array(problem)

    def space(self, problem: Convolution, architecture: Architecture) -> Iterator[WindowSizes]:
        """Every choice of sizes, the smallest first."""
        del architecture
        yield from space(problem)

    def rule(self, problem: Convolution, architecture: Architecture, rows: int) -> WindowSizes:
        """The cheapest by the cost model."""
        return min(
            self.space(problem, architecture),
            key=lambda sizes: self.seconds(problem, architecture, rows, sizes),
        )

    def seconds(
        self, problem: Convolution, architecture: Architecture, rows: int, sizes: WindowSizes
    ) -> float:
        """The cost model: multiply-adds, and the loads that they share."""
        results = sizes.channels * sizes.pixels
        threads = math.ceil(rows / sizes.pixels) * problem.outputs // sizes.channels
        blocks = math.ceil(threads / sizes.threads)
        words = 1 if problem.is_depthwise else problem.inputs // problem.groups // per_word(problem)
        # A thread's instructions for a tap's word: its products, its weights' loads, and for each
        # new pixel the address, the bounds and the load.
        fresh = 1 + (sizes.pixels - 1) * min(problem.strides[1], problem.kernel[1])
        new = (fresh / problem.kernel[1] + (problem.kernel[1] - 1) / problem.kernel[1]) * 10
        if not problem.is_depthwise:
            new /= 2
        instructions = problem.taps * words * (results + sizes.channels / 2 + 2 + new) + 60
        whole = blocks * sizes.threads
        work = Work(
            "vector",
            operations=2.0 * whole * instructions,
            traffic=problem.bytes * rows * problem.outputs * 2.0,
            blocks=blocks,
            resident=8,
            in_flight=sizes.threads * 4 * sizes.pixels * min(problem.taps, 9),
            efficiency=0.6,
        )
        return seconds(architecture, work)

    def title(self, sizes: WindowSizes) -> str:
        """The kernel in a report: pixels and channels of a thread."""
        return f"{self.name} {sizes.pixels}x{sizes.channels}"

    def build(
        self, problem: Convolution, architecture: Architecture, sizes: WindowSizes, name: str
    ) -> Kernel:
        """The kernel. Sums are exact for int8, and in float32 otherwise."""
        return Kernel(name, window_kernel(problem, sizes, name), architecture, "tirx")
