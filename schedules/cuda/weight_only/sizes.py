"""How the work of a product with a few-bit weight is divided: what there is to choose from."""

from __future__ import annotations

import dataclasses
from typing import Any

from ..architecture import Architecture
from ..problem import Linear
from .exchange import sums_bytes
from .few_bit import FewBit
from .planes import CHUNK, TILE

#: Bytes of a value of the activations on tensor cores.
_ITEM = 2


@dataclasses.dataclass(frozen=True)
class Sizes:
    """A block's tile and its pipeline.

    Attributes:
        tokens: rows of x that a block takes: a power of two up to 64; fewer than 8 fill part of an
            instruction.
        across: warps that have outputs of their own.
        along: warps that share outputs and take every so many-th chunk of the inputs.
        tiles: tiles of 16 outputs that a warp takes.
        stages: steps whose copies are under way or in use.
    """

    tokens: int
    across: int
    along: int
    tiles: int
    stages: int

    @property
    def threads(self) -> int:
        """Of a block."""
        return 32 * self.across * self.along

    @property
    def outputs(self) -> int:
        """Of a block."""
        return TILE * self.across * self.tiles

    @property
    def columns(self) -> int:
        """Groups of eight tokens, the N of an instruction."""
        return max(1, self.tokens // 8)

    @property
    def token_bytes(self) -> int:
        """Of a stage's activations."""
        return self.along * self.tokens * CHUNK * _ITEM


@dataclasses.dataclass(frozen=True)
class Stage:
    """Where things lie in a stage of shared memory, in bytes.

    A warp's share follows the activations: for each of its tiles the planes, scales, zero points.

    Attributes:
        sizes: of the block.
        layout: of the weight.
    """

    sizes: Sizes
    layout: FewBit

    @property
    def groups(self) -> int:
        """Groups of inputs that a chunk touches."""
        return 1 if self.layout.group is None else max(1, CHUNK // self.layout.group)

    @property
    def code_bytes(self) -> int:
        """Of a tile's codes of a chunk."""
        return TILE * CHUNK * self.layout.bits // 8

    @property
    def scale_bytes(self) -> int:
        """Of a tile's scales."""
        if self.layout.group is None:
            return 0
        return self.groups * TILE * (2 if self.layout.scale == "float16" else 4)

    @property
    def zero_bytes(self) -> int:
        """Of a tile's zero points."""
        return self.groups * TILE if self.layout.zero_points else 0

    @property
    def tile_bytes(self) -> int:
        """Of a tile."""
        return self.code_bytes + self.scale_bytes + self.zero_bytes

    @property
    def bytes(self) -> int:
        """Of the stage."""
        sizes = self.sizes
        return sizes.token_bytes + sizes.across * sizes.along * sizes.tiles * self.tile_bytes

    @property
    def table_bytes(self) -> int:
        """Of the format's levels, before the first stage."""
        return (_ITEM << self.layout.bits) if self.layout.has_table else 0

    @property
    def shared_bytes(self) -> int:
        """Of the block: the stages, later the sums of all warps."""
        sums = sums_bytes(self.sizes.along, self.sizes.tokens, self.sizes.outputs)
        return self.table_bytes + max(self.sizes.stages * self.bytes, sums)


def fits(problem: Linear, architecture: Architecture, sizes: Sizes) -> bool:
    """Whether a block of these sizes has the memory and the registers, and work for its warps."""
    layout: Any = problem.weight
    stage = Stage(sizes, layout)
    chunks = -(-problem.inputs // CHUNK)
    sums = 4 * sizes.columns * (sizes.tiles + (layout.group is not None))
    return (
        stage.shared_bytes <= architecture.shared_memory
        and sizes.along <= chunks
        and sums + sizes.tiles * layout.bits <= 128
        and TILE * sizes.tiles * (sizes.across - 1) < problem.outputs
    )
