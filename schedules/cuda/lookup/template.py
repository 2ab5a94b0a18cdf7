"""The templates of products with binary-coded weights; both read the same stored weight."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from ..architecture import Architecture
from ..cost import RATES, Work, seconds
from ..problem import Linear
from ..template import Kernel
from .binary_coded import WORD, BinaryCoded, padded
from .kernel import lut
from .matrix import decode_binary
from .sizes import ENTRIES, LANES, OCTET, SUMS, LutSizes, MatrixSizes, fits, matrix_fits

_ITEM = {"float16": 2, "bfloat16": 2, "float32": 4}
#: Instructions of a plane that decode what a product takes, in time of one product of 8 tokens.
_DECODE = 2.4
#: A launch's blocks, and the kernels' indices within a row of words, stay below it.
_WORDS = 1 << 31


class Lut:
    """One to four rows: bytes of signs are looked up in tables of signed sums of x."""

    name = "lut"

    def refusal(self, problem: Linear, architecture: Architecture) -> str | None:
        """Why the template has no kernel for a product, or None where it has one."""
        if problem.activation not in _ITEM:
            return f"there are no tables of sums of {problem.activation}"
        reason = _refusal(problem)
        if reason is None and next(self.space(problem, architecture), None) is None:
            return "no tables fit the architecture's shared memory"
        return reason

    def space(self, problem: Linear, architecture: Architecture) -> Iterator[LutSizes]:
        """Every choice of sizes that makes a valid kernel, in a fixed order."""
        for rows in (1, 2, 4):
            for tables in (1, 2, 4):
                for tiles in (1, 2, 4, 8, 16, 32):
                    for warps in (8, 16):
                        for split in (1, 2, 4, 8):
                            sizes = LutSizes(rows, tables, tiles, warps, split)
                            if fits(problem, architecture, sizes):
                                yield sizes

    def rule(self, problem: Linear, architecture: Architecture, rows: int) -> LutSizes:
        """The cheapest by the cost model."""
        return min(
            self.space(problem, architecture),
            key=lambda sizes: self.seconds(problem, architecture, rows, sizes),
        )

    def seconds(
        self, problem: Linear, architecture: Architecture, rows: int, sizes: LutSizes
    ) -> float:
        """The cost model: each load from shared memory, of look-ups and of tables, takes a turn."""
        layout: Any = problem.weight
        words = padded(1, problem.inputs)[1]
        down = math.ceil(rows / sizes.rows)
        across = math.ceil(problem.outputs / sizes.outputs)
        slices = math.ceil(words / sizes.words)
        # Of one slice: tables, look-ups, and the exchange between lanes.
        made = sizes.rows * sizes.tables * ENTRIES
        found = sizes.rows * sizes.tables * sizes.outputs * layout.bits
        added = sizes.rows * sizes.outputs * (SUMS - 1) / SUMS
        turns = float(down * across * slices) * (made + found + added)
        rates = RATES[architecture.name]
        # Shared memory gives 32 words a turn, of which a multiprocessor has one for every
        # 128 (64 on sm_80) multiply-adds.
        each = (64 if architecture.name == "sm_80" else 128) * 2.0
        registers = sizes.threads * 96
        work = Work(
            "vector",
            operations=turns * each,
            traffic=_bytes(problem) + rows * _ITEM[problem.activation] * problem.inputs,
            blocks=down * across * sizes.split,
            resident=_resident(architecture, sizes.shared_bytes, sizes.threads, registers),
            in_flight=sizes.warps * LANES * 16 * layout.bits,
            efficiency=0.7,
            cached=float(down) * _bytes(problem),
        )
        rounds = math.ceil(slices / sizes.split)
        return seconds(architecture, work) + rounds * rates.block

    def build(
        self, problem: Linear, architecture: Architecture, sizes: LutSizes, name: str
    ) -> Kernel:
        """The kernel. Its sums are float32, in an order that depends on the sizes only."""
        return Kernel(name, lut(problem, sizes, name), architecture, "tirx", "LDS")


class DecodeBinary:
    """Any number of rows: signs become halves in registers, tensor cores multiply them."""

    name = "decode-bcq"

    def refusal(self, problem: Linear, architecture: Architecture) -> str | None:
        """Why the template has no kernel for a product, or None where it has one."""
        if problem.activation not in ("float16", "bfloat16"):
            return f"tensor cores do not multiply decoded signs with {problem.activation}"
        return _refusal(problem)

    def space(self, problem: Linear, architecture: Architecture) -> Iterator[MatrixSizes]:
        """Every choice of sizes that makes a valid kernel, in a fixed order."""
        for tokens in (8, 16, 32, 64):
            for across in (1, 2, 4):
                for along in (1, 2, 4, 8):
                    sizes = MatrixSizes(tokens, across, along)
                    if matrix_fits(problem, architecture, sizes):
                        yield sizes

    def rule(self, problem: Linear, architecture: Architecture, rows: int) -> MatrixSizes:
        """The cheapest by the cost model."""
        return min(
            self.space(problem, architecture),
            key=lambda sizes: self.seconds(problem, architecture, rows, sizes),
        )

    def seconds(
        self, problem: Linear, architecture: Architecture, rows: int, sizes: MatrixSizes
    ) -> float:
        """The cost model: decoding a plane takes longer than a product of eight tokens."""
        layout: Any = problem.weight
        down = math.ceil(rows / sizes.tokens)
        across = math.ceil(problem.outputs / sizes.outputs)
        width = padded(1, problem.inputs)[1] * WORD
        columns = sizes.tokens // 8
        registers = sizes.threads * min(255, 64 + 8 * layout.bits + 8 * columns)
        work = Work(
            "mma16",
            operations=2.0 * down * across * sizes.outputs * sizes.tokens * width,
            traffic=_bytes(problem) + rows * (2 * problem.inputs + 2 * problem.outputs),
            blocks=down * across,
            resident=_resident(architecture, sizes.shared_bytes, sizes.threads, registers),
            in_flight=sizes.across * sizes.along * LANES * 32 * layout.bits,
            efficiency=0.8 * columns / (columns + _DECODE * layout.bits),
            cached=float(down * across) * sizes.tokens * width * 2 + float(down) * _bytes(problem),
        )
        return seconds(architecture, work)

    def build(
        self, problem: Linear, architecture: Architecture, sizes: MatrixSizes, name: str
    ) -> Kernel:
        """The kernel. Its sums are float32, in an order that depends on the sizes only."""
        return Kernel(name, decode_binary(problem, sizes, name), architecture, "tirx", "HMMA")


def _refusal(problem: Linear) -> str | None:
    if not isinstance(problem.weight, BinaryCoded):
        return f"the weight's layout is {problem.weight.key}"
    if padded(1, problem.inputs)[1] * WORD * OCTET >= _WORDS:
        return f"a row of {problem.inputs} inputs is too long"
    return None


def _bytes(problem: Linear) -> float:
    """Of the stored weight."""
    sizes = {"uint32": 4, "float32": 4, "float16": 2}
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
