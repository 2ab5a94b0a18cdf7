"""A chunk of a warp's tiles times the block's tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tvm import tirx
from tvm.tirx.script import builder

from ..intrinsics.mma import KINDS, multiply
from .lanes import Tile
from .tokens import Tokens

#: TVM's builder; its annotations are narrower than what it gives.
T: Any = builder


def add_chunk(sums: Any, tiles: Sequence[Tile], tokens: Tokens, place: Any, groups: int) -> None:
    """Add the products of a chunk.

    Where groups of inputs have scales, their products are summed apart and scaled in float32, so
    16-bit numbers never see a scale.

    Args:
        sums: float32 registers: four for each tile and group of eight lines.
        tiles: the warp's.
        tokens: the block's.
        place: of the chunk's lines in shared memory.
        groups: of inputs in the chunk.
    """
    columns, count = tokens.columns, 4 * tokens.columns
    apart = tiles[0].layout.group is not None
    total = count * len(tiles)
    parted = T.alloc_buffer((total,), "float32", scope="local") if apart else sums
    each = 4 // groups
    for group in range(groups):
        if apart:
            for i in range(total):
                T.buffer_store(parted, tirx.const(0.0, "float32"), [i])
        for part in range(group * each, (group + 1) * each):
            # Just before they are used: reading further ahead would need more registers.
            right = tokens.fragment(place, part)
            for number, tile in enumerate(tiles):
                left = tile.registers(group, part)
                for column in range(columns):
                    at = number * count + 4 * column
                    words = right[2 * column : 2 * column + 2]
                    multiply(KINDS[tile.dtype], [parted[at + i] for i in range(4)], left, words)
        if apart:
            for number, tile in enumerate(tiles):
                scales = tile.scales(group)
                for i in range(count):
                    at = number * count + i
                    T.buffer_store(sums, sums[at] + parted[at] * scales[i // 2 % 2], [at])
