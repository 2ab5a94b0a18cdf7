"""The template: which products it takes, and what sizes cost."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator

from ..architecture import Architecture
from ..cost import Unit, Work, seconds
from ..intrinsics.mma import COPY, KINDS
from ..problem import Linear
from ..template import Kernel
from ..weight_format import Dense
from .kernel import kernel
from .sizes import Sizes, space


class Mma:
    """Dense products on tensor cores, a warp at a time."""

    name = "mma"

    def refusal(self, problem: Linear, architecture: Architecture) -> str | None:
        """What tensor cores lack, and rows that do not begin at multiples of 16 bytes."""
        kind = KINDS.get(problem.activation)
        if kind is None:
            return f"no tensor core multiplies {problem.activation}"
        if not isinstance(problem.weight, Dense):
            return f"the weight's layout is {problem.weight.key}"
        if problem.weight.dtype != problem.activation:
            return f"activations of {problem.activation} with a weight of {problem.weight.dtype}"
        if kind.machine == "QMMA" and not architecture.has_fp8_mma:
            return f"{architecture.name} has no products of FP8 in a warp"
        if problem.inputs * kind.bytes % COPY:
            return f"a row of {problem.inputs} {problem.activation} is no multiple of {COPY} bytes"
        return None

    def space(self, problem: Linear, architecture: Architecture) -> Iterator[Sizes]:
        """All sizes that fit, small tiles first."""
        yield from space(problem.outputs, architecture)

    def rule(self, problem: Linear, architecture: Architecture, rows: int) -> Sizes:
        """The cheapest by the cost model."""
        return _cheapest(
            problem.inputs * KINDS[problem.activation].bytes,
            problem.outputs,
            problem.activation,
            architecture,
            rows,
        )

    def seconds(
        self, problem: Linear, architecture: Architecture, rows: int, sizes: Sizes
    ) -> float:
        """The cost model: tensor cores, shared memory and the GPU's memory."""
        length = problem.inputs * KINDS[problem.activation].bytes
        return _seconds(length, problem.outputs, problem.activation, architecture, rows, sizes)

    def build(self, problem: Linear, architecture: Architecture, sizes: Sizes, name: str) -> Kernel:
        """The kernel. Sums are exact for int8, and in float32 otherwise."""
        return Kernel(
            name=name,
            function=kernel(problem, sizes, name),
            architecture=architecture,
            pipeline="tirx",
            instruction=KINDS[problem.activation].machine,
        )


@functools.lru_cache(maxsize=4096)
def _cheapest(
    length: int, outputs: int, activation: str, architecture: Architecture, rows: int
) -> Sizes:
    return min(
        space(outputs, architecture),
        key=lambda sizes: _seconds(length, outputs, activation, architecture, rows, sizes),
    )


def _seconds(
    length: int,
    outputs: int,
    activation: str,
    architecture: Architecture,
    rows: int,
    sizes: Sizes,
) -> float:
    kind = KINDS[activation]
    blocks = math.ceil(rows / sizes.rows) * math.ceil(outputs / sizes.columns)
    steps = math.ceil(length / sizes.depth)
    unit: Unit = "mma16" if kind.bytes == 2 else "mma8"
    # Per 32 bytes along K, a warp's products take 2 cycles each of an A100's tensor cores, and its
    # operands come from shared memory at 128 bytes per cycle.
    products = 2.0 * sizes.row_tiles * sizes.column_tiles
    operands = 4.0 * sizes.row_tiles + 2.0 * sizes.column_tiles
    # Nobody multiplies while the pipeline fills; two warps per scheduler hide what one waits for.
    resident = sizes.resident(architecture)
    hidden = min(1.0, sizes.warps * resident / 8)
    efficiency = 0.9 * products / (products + 0.25 * operands) * (0.5 + 0.5 * hidden)
    efficiency *= min(1.0, products / operands) * steps / (steps + 1)
    # The fewer steps are on their way, the more often a late one is waited for.
    efficiency *= sizes.stages / (sizes.stages + 0.3)
    work = Work(
        unit,
        operations=2.0 * blocks * sizes.rows * sizes.columns * steps * sizes.depth / kind.bytes,
        traffic=(rows + outputs) * length + 2.0 * rows * outputs,
        blocks=blocks,
        resident=resident,
        in_flight=(sizes.stages - 1) * sizes.stage_bytes,
        efficiency=efficiency,
        cached=float(blocks) * (min(rows, sizes.rows) + sizes.columns) * length,
    )
    return seconds(architecture, work)
