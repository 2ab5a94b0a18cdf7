"""The template of ``mma.sp`` with few-bit weights."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator

from ..architecture import Architecture
from ..cost import Work, seconds
from ..problem import Linear
from ..template import Kernel
from ..weight_only.planes import CHUNK, padded
from .decode_kernel import kernel
from .decode_sizes import DecodeSizes, space
from .few_bit import SparseFewBit
from .narrow_tile import FEWEST

#: Instructions that decoding takes beside a product of eight rows, in time of one product.
_DECODE = 1.6


class SparseDecode:
    """2:4 weights of few bits, decoded in registers: few rows on every generation."""

    name = "sparse-decode"

    def refusal(self, problem: Linear, architecture: Architecture) -> str | None:
        """Why there is no kernel, or None."""
        if not isinstance(problem.weight, SparseFewBit):
            return f"the weight's layout is {problem.weight.key}"
        if problem.activation not in ("float16", "bfloat16"):
            return f"few-bit weights are not multiplied with {problem.activation}"
        if problem.inputs * 2 % FEWEST:
            return f"a row of {problem.inputs} numbers is no multiple of {FEWEST} bytes"
        return None

    def space(self, problem: Linear, architecture: Architecture) -> Iterator[DecodeSizes]:
        """All sizes that fit, small tiles first."""
        assert isinstance(problem.weight, SparseFewBit)
        yield from space(problem.weight.kept, problem.outputs, architecture)

    def rule(self, problem: Linear, architecture: Architecture, rows: int) -> DecodeSizes:
        """The cheapest by the cost model."""
        return min(
            self.space(problem, architecture),
            key=functools.partial(self.seconds, problem, architecture, rows),
        )

    def seconds(
        self, problem: Linear, architecture: Architecture, rows: int, sizes: DecodeSizes
    ) -> float:
        """The cost model: weights come from memory once for each block of rows."""
        assert isinstance(problem.weight, SparseFewBit)
        outputs, kept = padded(problem.outputs, problem.inputs // 2)
        # Codes, and as many bits of metadata as kept values take to be found.
        weight = outputs * kept * (problem.weight.kept.bits + 2) / 8
        down = math.ceil(rows / sizes.rows)
        blocks = down * math.ceil(problem.outputs / sizes.columns)
        resident = sizes.resident(architecture)
        work = Work(
            "mma16",
            # Half of the operations are with zeros that nobody multiplies.
            operations=2.0 * blocks * sizes.rows * sizes.columns * kept,
            traffic=weight + rows * 2.0 * (problem.inputs + problem.outputs),
            blocks=blocks,
            resident=resident,
            in_flight=sizes.stages
            * (sizes.columns * sizes.slices * CHUNK * (problem.weight.kept.bits + 2) / 8),
            efficiency=0.8 * sizes.row_tiles / (sizes.row_tiles + _DECODE),
            cached=float(blocks) * min(rows, sizes.rows) * 2.0 * problem.inputs + down * weight,
        )
        return seconds(architecture, work)

    def build(
        self, problem: Linear, architecture: Architecture, sizes: DecodeSizes, name: str
    ) -> Kernel:
        """The kernel. Its sums are float32, in an order that depends on the sizes only."""
        return Kernel(name, kernel(problem, sizes, name), architecture, "tirx", "HMMA.SP")
