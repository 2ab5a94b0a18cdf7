"""The templates of products with few-bit weights: from one row to many, each any number is right.

All share `FewBit`, so a weight is stored once whatever the number of rows. What differs is what is
scarce: few rows wait for memory and instructions, many for tensor cores.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from ..architecture import Architecture
from ..cost import Work, seconds
from ..problem import Linear
from ..template import Kernel
from .few_bit import FewBit
from .kernel import kernel
from .planes import TILE, padded
from .sizes import Sizes, Stage, fits
from .stream import StreamSizes, stream, stream_fits
from .tokens import parts
from .warpgroup import OUTPUTS, WarpgroupSizes, warpgroup

#: 32-bit words: a launch's blocks and the kernels' indices of tiles stay below it.
_WORDS = 1 << 31
#: Instructions that decoding takes beside a product of eight tokens, in time of one product.
_DECODE = 1.6


class _MmaSync:
    """What the two templates of `kernel` share."""

    name: str
    tokens: tuple[int, ...]

    def refusal(self, problem: Linear, architecture: Architecture) -> str | None:
        """Why the template has no kernel for a product, or None where it has one."""
        if problem.activation not in ("float16", "bfloat16"):
            return f"tensor cores do not multiply few-bit weights with {problem.activation}"
        reason = _refusal(problem)
        if reason is None and next(self.space(problem, architecture), None) is None:
            return "no tile fits the architecture's shared memory"
        return reason

    def space(self, problem: Linear, architecture: Architecture) -> Iterator[Sizes]:
        """Every choice of sizes that makes a valid kernel, in a fixed order."""
        for tokens in self.tokens:
            for across in (1, 2, 4, 8):
                for along in (1, 2, 4, 8):
                    if not 4 <= across * along <= 8:
                        continue
                    for tiles in (1, 2):
                        for stages in (4, 3, 6):
                            sizes = Sizes(tokens, across, along, tiles, stages)
                            if fits(problem, architecture, sizes):
                                yield sizes

    def rule(self, problem: Linear, architecture: Architecture, rows: int) -> Sizes:
        """The cheapest by the cost model."""
        return min(
            self.space(problem, architecture),
            key=lambda sizes: self.seconds(problem, architecture, rows, sizes),
        )

    def seconds(
        self, problem: Linear, architecture: Architecture, rows: int, sizes: Sizes
    ) -> float:
        """The cost model: tokens pass the second cache once for each block of outputs."""
        layout: Any = problem.weight
        stage = Stage(sizes, layout)
        down, across = _blocks(problem, rows, sizes.tokens, sizes.outputs)
        columns, inputs = padded(1, problem.inputs)[1], problem.inputs
        registers = sizes.threads * min(255, 60 + 4 * sizes.columns * sizes.tiles * 2)
        work = Work(
            "mma16",
            operations=2.0 * down * across * sizes.outputs * 8 * sizes.columns * columns,
            traffic=_bytes(problem) + rows * (2 * inputs + 2 * problem.outputs),
            blocks=down * across,
            resident=_resident(architecture, stage.shared_bytes, sizes.threads, registers),
            in_flight=(sizes.stages - 1) * stage.bytes,
            efficiency=0.8 * sizes.columns / (sizes.columns + _DECODE),
            cached=float(down * across) * (sizes.tokens * columns * 2 + 0.5 * sizes.outputs)
            + float(down) * _bytes(problem),
        )
        return seconds(architecture, work)

    def build(self, problem: Linear, architecture: Architecture, sizes: Sizes, name: str) -> Kernel:
        """The kernel. Its sums are float32, in an order that depends on the sizes only."""
        return Kernel(name, kernel(problem, sizes, name), architecture, "tirx", "HMMA")


class Skinny(_MmaSync):
    """Tens of rows: weights stream through shared memory, tokens with them."""

    name = "skinny"
    tokens = (8, 16, 32)


class DecodeMma(_MmaSync):
    """Many rows where there is no ``wgmma``: each decoded tile meets 64 tokens."""

    name = "decode-mma"
    tokens = (64,)


class Matvec:
    """Few rows: weights from memory to registers, tokens in shared memory from the start."""

    name = "matvec"

    def refusal(self, problem: Linear, architecture: Architecture) -> str | None:
        """Why the template has no kernel for a product, or None where it has one."""
        if problem.activation not in ("float16", "bfloat16", "float32"):
            return f"few-bit weights are not multiplied with {problem.activation}"
        reason = _refusal(problem)
        if reason is None and next(self.space(problem, architecture), None) is None:
            return f"a token of {problem.inputs} inputs exceeds the shared memory"
        return reason

    def space(self, problem: Linear, architecture: Architecture) -> Iterator[StreamSizes]:
        """Every choice of sizes that makes a valid kernel, in a fixed order."""
        for tokens in (1, 2, 4, 8, 16):
            for along in (1, 2, 4, 8, 16):
                for tiles in (1, 2, 4):
                    for ahead in (1, 2, 4, 8):
                        sizes = StreamSizes(tokens, along, tiles, ahead)
                        if stream_fits(problem, architecture, sizes):
                            yield sizes

    def rule(self, problem: Linear, architecture: Architecture, rows: int) -> StreamSizes:
        """The cheapest by the cost model."""
        return min(
            self.space(problem, architecture),
            key=lambda sizes: self.seconds(problem, architecture, rows, sizes),
        )

    def seconds(
        self, problem: Linear, architecture: Architecture, rows: int, sizes: StreamSizes
    ) -> float:
        """The cost model: every block reads its tokens through the second cache."""
        layout: Any = problem.weight
        down, across = _blocks(problem, rows, sizes.tokens, sizes.outputs)
        columns = -(-sizes.tokens * parts(problem.activation) // 8)
        width = padded(1, problem.inputs)[1]
        item = 4 if problem.activation == "float32" else 2
        chunk = TILE * 64 * layout.bits // 8
        used = width / (sizes.rounds(problem.inputs) * sizes.along * sizes.ahead * 64)
        registers = sizes.threads * min(
            255, 48 + sizes.tiles * (sizes.ahead * (layout.bits + 1) + 8 * columns)
        )
        work = Work(
            "mma16",
            operations=2.0 * down * across * sizes.outputs * 8 * columns * width / used,
            traffic=_bytes(problem) + rows * (item * problem.inputs + 2 * problem.outputs),
            blocks=down * across,
            resident=_resident(architecture, sizes.shared_bytes(problem), sizes.threads, registers),
            in_flight=sizes.along * sizes.tiles * sizes.ahead * chunk,
            efficiency=0.8 * columns / (columns + _DECODE),
            cached=float(down * across) * sizes.tokens * width * item
            + float(down) * _bytes(problem),
        )
        return seconds(architecture, work)

    def build(
        self, problem: Linear, architecture: Architecture, sizes: StreamSizes, name: str
    ) -> Kernel:
        """The kernel. Its sums are float32, in an order that depends on the sizes only."""
        return Kernel(name, stream(problem, sizes, name), architecture, "tirx", "HMMA")


class DecodeWgmma:
    """Many rows on Hopper: codes decoded in registers meet up to 256 tokens of a TMA ring."""

    name = "decode-wgmma"

    def refusal(self, problem: Linear, architecture: Architecture) -> str | None:
        """Why the template has no kernel for a product, or None where it has one."""
        if not architecture.has_wgmma:
            return f"{architecture.name} has no wgmma"
        if problem.activation not in ("float16", "bfloat16"):
            return f"wgmma does not multiply few-bit weights with {problem.activation}"
        if problem.inputs % 8:
            return f"the copy engine needs rows of 16 bytes, not {problem.inputs} inputs"
        return _refusal(problem)

    def space(self, problem: Linear, architecture: Architecture) -> Iterator[WarpgroupSizes]:
        """Every choice of sizes that makes a valid kernel, in a fixed order."""
        for tokens in (32, 64, 128, 192, 256):
            for stages in (4, 6, 3):
                sizes = WarpgroupSizes(tokens, stages)
                if sizes.shared_bytes(problem) <= architecture.shared_memory:
                    yield sizes

    def rule(self, problem: Linear, architecture: Architecture, rows: int) -> WarpgroupSizes:
        """The cheapest by the cost model."""
        return min(
            self.space(problem, architecture),
            key=lambda sizes: self.seconds(problem, architecture, rows, sizes),
        )

    def seconds(
        self, problem: Linear, architecture: Architecture, rows: int, sizes: WarpgroupSizes
    ) -> float:
        """The cost model: a step's decoding is hidden where its product takes longer."""
        layout: Any = problem.weight
        down, across = _blocks(problem, rows, sizes.tokens, OUTPUTS)
        width = padded(1, problem.inputs)[1]
        registers = 256 * min(255, 80 + sizes.tokens // 2)
        work = Work(
            "wgmma16",
            operations=2.0 * down * across * OUTPUTS * sizes.tokens * width,
            traffic=_bytes(problem) + rows * (2 * problem.inputs + 2 * problem.outputs),
            blocks=down * across,
            resident=_resident(architecture, sizes.shared_bytes(problem), 256, registers),
            in_flight=(sizes.stages - 1) * sizes.stage_bytes + 2 * OUTPUTS * 8 * layout.bits,
            efficiency=0.85 * sizes.tokens / (sizes.tokens + _DECODE * 16),
            cached=float(down * across) * sizes.tokens * width * 2 + float(down) * _bytes(problem),
        )
        return seconds(architecture, work)

    def build(
        self, problem: Linear, architecture: Architecture, sizes: WarpgroupSizes, name: str
    ) -> Kernel:
        """The kernel. Its sums are float32, in the order of the inputs."""
        return Kernel(name, warpgroup(problem, sizes, name), architecture, "tirx", "HGMMA")


def _refusal(problem: Linear) -> str | None:
    if not isinstance(problem.weight, FewBit):
        return f"the weight's layout is {problem.weight.key}"
    rows, columns = padded(problem.outputs, problem.inputs)
    if rows * columns * problem.weight.bits // 32 >= _WORDS:
        return f"a weight of {problem.outputs} by {problem.inputs} takes 8 GiB or more"
    return None


def _blocks(problem: Linear, rows: int, tokens: int, outputs: int) -> tuple[int, int]:
    return math.ceil(rows / tokens), math.ceil(problem.outputs / outputs)


def _bytes(problem: Linear) -> float:
    """Of the stored weight."""
    sizes = {"uint32": 4, "float32": 4, "float16": 2, "uint8": 1}
    arrays = problem.weight.arrays(problem.outputs, problem.inputs)
    return float(sum(math.prod(a.shape) * sizes[a.dtype] for a in arrays))


def _resident(architecture: Architecture, shared: int, threads: int, registers: int) -> int:
    """Blocks that fit on a multiprocessor."""
    return max(
        1,
        min(
            architecture.shared_memory_sm // (shared + 1024),
            2048 // threads,
            architecture.registers // registers,
        ),
    )
