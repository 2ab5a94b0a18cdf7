"""The template of ``mma.sp``: which products it takes, and what sizes cost."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator

from ..architecture import Architecture
from ..cost import Unit, Work, seconds
from ..intrinsics.mma import KINDS
from ..problem import Linear
from ..template import Kernel
from .layout import STEP, Sparse24
from .mma_kernel import kernel
from .mma_sizes import SparseSizes, space
from .narrow_tile import FEWEST


def refusal(problem: Linear, alignment: int) -> str | None:
    """Why a template of sparse products that begins rows at such multiples of bytes takes none."""
    if not isinstance(problem.weight, Sparse24):
        return f"the weight's layout is {problem.weight.key}"
    if problem.weight.dtype != problem.activation:
        return f"activations of {problem.activation} with a weight of {problem.weight.dtype}"
    if problem.inputs * problem.weight.item % alignment:
        return f"a row of {problem.inputs} {problem.activation} is no multiple of {alignment} bytes"
    return None


class SparseMma:
    """2:4 weights on sparse tensor cores, a warp at a time."""

    name = "sparse-mma"

    def refusal(self, problem: Linear, architecture: Architecture) -> str | None:
        """What tensor cores lack, and rows that do not begin at multiples of 4 bytes."""
        reason = refusal(problem, FEWEST)
        if reason is not None:
            return reason
        if KINDS[problem.activation].machine == "QMMA" and not architecture.has_fp8_mma:
            return f"{architecture.name} has no products of FP8 in a warp"
        return None

    def space(self, problem: Linear, architecture: Architecture) -> Iterator[SparseSizes]:
        """All sizes that fit, small tiles first."""
        yield from space(problem.outputs, architecture)

    def rule(self, problem: Linear, architecture: Architecture, rows: int) -> SparseSizes:
        """The cheapest by the cost model."""
        length = problem.inputs * KINDS[problem.activation].bytes
        return _cheapest(length, problem.outputs, problem.activation, architecture, rows)

    def seconds(
        self, problem: Linear, architecture: Architecture, rows: int, sizes: SparseSizes
    ) -> float:
        """The cost model: tensor cores, shared memory and the GPU's memory."""
        length = problem.inputs * KINDS[problem.activation].bytes
        return _seconds(length, problem.outputs, problem.activation, architecture, rows, sizes)

    def build(
        self, problem: Linear, architecture: Architecture, sizes: SparseSizes, name: str
    ) -> Kernel:
        """The kernel. Sums are exact for int8, and in float32 otherwise."""
        return Kernel(
            name=name,
            function=kernel(problem, sizes, name),
            architecture=architecture,
            pipeline="tirx",
            instruction=f"{KINDS[problem.activation].machine}.SP",
        )


@functools.lru_cache(maxsize=4096)
def _cheapest(
    length: int, outputs: int, activation: str, architecture: Architecture, rows: int
) -> SparseSizes:
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
    sizes: SparseSizes,
) -> float:
    kind = KINDS[activation]
    blocks = math.ceil(rows / sizes.rows) * math.ceil(outputs / sizes.columns)
    steps = math.ceil(length / sizes.depth)
    unit: Unit = "mma16" if kind.bytes == 2 else "mma8"
    # Per 64 bytes along K, a warp's sparse products take as long as dense ones of 32; operands come
    # from shared memory at 128 bytes per cycle.
    products = 2.0 * sizes.row_tiles * sizes.column_tiles
    operands = 4.0 * sizes.row_tiles + 5.0 * sizes.column_tiles
    resident = sizes.resident(architecture)
    hidden = min(1.0, sizes.warps * resident / 8)
    efficiency = 0.9 * products / (products + 0.25 * operands) * (0.5 + 0.5 * hidden)
    efficiency *= min(1.0, products / operands) * steps / (steps + 1)
    efficiency *= sizes.stages / (sizes.stages + 0.3)
    compressed = length * 5 / 8 if kind.bytes == 1 else length * 9 / 16
    work = Work(
        unit,
        # Half of the operations are with zeros that nobody multiplies.
        operations=1.0 * blocks * sizes.rows * sizes.columns * steps * sizes.depth / kind.bytes,
        traffic=rows * length + outputs * compressed + 2.0 * rows * outputs,
        blocks=blocks,
        resident=resident,
        in_flight=(sizes.stages - 1) * sizes.stage_bytes,
        efficiency=efficiency,
        cached=float(blocks)
        * (min(rows, sizes.rows) * length + sizes.columns * compressed)
        * (steps * sizes.depth / max(length, STEP)),
    )
    return seconds(architecture, work)
