"""Convolutions as products of patches on tensor cores (implicit GEMM), and what sizes cost."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script import builder

from ..architecture import Architecture
from ..intrinsics.mma import KINDS
from ..mma import Mma
from ..mma.kernel import Block
from ..mma.sizes import Sizes
from ..parameters import Parameters
from ..template import Kernel
from .parameters import Declared
from .patches import Patches, unit
from .problem import Convolution, patches_weight

#: TVM's builder; its annotations are narrower than what it gives.
T: Any = builder

#: Registers of a thread for sums, and for the places of its rows: both live through all steps.
_SUMS, _PLACES = 64, 32

#: Columns of the narrowest tile.
_NARROWEST = 16
#: Sums at which the compiler spills for the sake of more blocks, where blocks are small.
_CROWDED = 32

_MMA = Mma()


class ImplicitGemm:
    """Dense convolutions on tensor cores, a warp at a time."""

    name = "conv mma"
    pack = staticmethod(patches_weight)

    def refusal(self, problem: Convolution, architecture: Architecture) -> str | None:
        """Types without tensor cores, pixels that no copy ends with, and small groups."""
        if problem.activation not in KINDS:
            return f"no tensor core multiplies {problem.activation}"
        channels, each = problem.inputs // problem.groups, problem.outputs // problem.groups
        if unit(channels * problem.bytes) is None:
            return f"{channels} channels of {problem.activation} are no multiple of 4 bytes"
        if problem.groups > 1 and each % _NARROWEST:
            return f"a group has {each} channels, which is no multiple of {_NARROWEST}"
        return _MMA.refusal(problem.linear(), architecture)

    def weight(self, problem: Convolution) -> tuple[tuple[int, ...], str]:
        """Shape and dtype of the weight that kernels read."""
        return (problem.outputs, problem.linear().inputs), problem.activation

    def space(self, problem: Convolution, architecture: Architecture) -> Iterator[Sizes]:
        """Every choice of sizes that fits, small tiles first."""
        for sizes in _MMA.space(problem.linear(), architecture):
            if problem.groups > 1 and problem.outputs // problem.groups % sizes.columns:
                continue  # a tile is in one group
            turns = -(-sizes.rows * (sizes.depth // 16) // sizes.threads)
            crowded = sizes.threads < 128 and sizes.sums >= _CROWDED
            if sizes.sums <= _SUMS and 4 * turns <= _PLACES and not crowded:
                yield sizes

    def rule(self, problem: Convolution, architecture: Architecture, rows: int) -> Sizes:
        """The cheapest by the cost model."""
        return min(
            self.space(problem, architecture),
            key=lambda sizes: self.seconds(problem, architecture, rows, sizes),
        )

    def seconds(
        self, problem: Convolution, architecture: Architecture, rows: int, sizes: Sizes
    ) -> float:
        """The cost model of the product; patches come from the second cache."""
        return _MMA.seconds(problem.linear(), architecture, rows, sizes)

    def title(self, sizes: Sizes) -> str:
        """The kernel in a report: pixels and channels of a block."""
        return f"{self.name} {sizes.rows}x{sizes.columns}"

    def build(
        self, problem: Convolution, architecture: Architecture, sizes: Sizes, name: str
    ) -> Kernel:
        """The kernel. Sums are exact for int8, and in float32 otherwise."""
        with IRBuilder() as function:
            with T.prim_func():
                T.func_name(name)
                T.func_attr({"global_symbol": name})
                _Block(Declared.declare(problem, self.weight(problem)), sizes).emit()
            made = function.get()
        return Kernel(name, made, architecture, "tirx", KINDS[problem.activation].machine)


class _Block(Block):
    """A block of a product whose left side is made of patches."""

    def __init__(self, declared: Declared, sizes: Sizes) -> None:
        self.declared = declared
        problem = declared.problem.linear()
        rows = declared.extents.rows
        super().__init__(
            Parameters(
                problem, rows, declared.x, (declared.weight,), declared.operands, declared.y
            ),
            sizes,
        )

    def left_tile(self) -> Patches:
        """The patches of the block's rows."""
        return Patches(
            self.shared,
            self.declared,
            self.sizes,
            first=self.first_row,
            column=self.first_column,
            thread=self.thread,
        )
