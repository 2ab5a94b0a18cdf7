"""The template: which tiles there are, and what they cost."""

from __future__ import annotations

import math
from collections.abc import Iterator

from ..architecture import Architecture
from ..cost import Unit, Work, seconds
from ..problem import Linear
from ..template import Kernel
from ..weight_format import Dense
from .kernel import kernel
from .sizes import Sizes, packed

_ACTIVATIONS = frozenset({"int8", "float8_e4m3fn", "float8_e5m2", "float16", "bfloat16", "float32"})
_BYTES = {"int8": 1, "float8_e4m3fn": 1, "float8_e5m2": 1, "float16": 2, "bfloat16": 2}

#: From one row to many.
_SPACE = (
    Sizes(rows=4, columns=64, depth=32, thread_rows=2, thread_columns=1),
    Sizes(rows=16, columns=64, depth=32, thread_rows=4, thread_columns=2),
    Sizes(rows=64, columns=64, depth=16, thread_rows=4, thread_columns=4),
)


class Simt:
    """Dense products of any shape, one multiply-add (or ``dp4a``) at a time."""

    name = "simt"

    def refusal(self, problem: Linear, architecture: Architecture) -> str | None:
        """Only weights that are not dense, and activations that are no numbers of these kinds."""
        if problem.activation not in _ACTIVATIONS:
            return f"activations of {problem.activation}"
        if not isinstance(problem.weight, Dense):
            return f"the weight's layout is {problem.weight.key}"
        if problem.weight.dtype != problem.activation:
            return f"activations of {problem.activation} with a weight of {problem.weight.dtype}"
        return None

    def space(self, problem: Linear, architecture: Architecture) -> Iterator[Sizes]:
        """All tiles, whatever the product."""
        yield from _SPACE

    def rule(self, problem: Linear, architecture: Architecture, rows: int) -> Sizes:
        """The cheapest by the cost model."""
        return min(_SPACE, key=lambda sizes: self.seconds(problem, architecture, rows, sizes))

    def seconds(
        self, problem: Linear, architecture: Architecture, rows: int, sizes: Sizes
    ) -> float:
        """The cost model. Each multiply-add also loads operands from shared memory."""
        down = math.ceil(rows / sizes.rows)
        across = math.ceil(problem.outputs / sizes.columns)
        blocks = down * across
        size = _BYTES.get(problem.activation, 4)
        loads = (sizes.thread_rows + sizes.thread_columns) / (
            sizes.thread_rows * sizes.thread_columns
        )
        unit: Unit = "dot" if packed(problem) else "vector"
        tile = (sizes.rows + sizes.columns) * problem.inputs * size
        work = Work(
            unit,
            operations=2.0 * blocks * sizes.rows * sizes.columns * problem.inputs,
            traffic=(rows + problem.outputs) * problem.inputs * size + rows * problem.outputs * 4,
            blocks=blocks,
            resident=max(1, 1024 // sizes.threads),
            in_flight=(sizes.rows + sizes.columns) * sizes.depth * size,
            efficiency=0.6 / (1.0 + 2.0 * loads),
            cached=blocks * tile,
        )
        return seconds(architecture, work)

    def build(self, problem: Linear, architecture: Architecture, sizes: Sizes, name: str) -> Kernel:
        """The kernel. Its sums are exact for int8, and in float32 otherwise."""
        return Kernel(
            name=name,
            function=kernel(problem, sizes, name),
            architecture=architecture,
            pipeline="tirx",
            instruction="IDP" if packed(problem) else None,
        )
