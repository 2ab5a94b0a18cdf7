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
    parted = T.alloc_buffer((count,), "float32", scope="local") if apart else sums
    each = 4 // groups
    for group in range(groups):
        inside = range(group * each, (group + 1) * each)
        right = {part: tokens.fragment(place, part) for part in inside}
        for number, tile in enumerate(tiles):
            start = number * count
            base = 0 if apart else start
            if apart:
                for i in range(count):
                    T.buffer_store(parted, tirx.const(0.0, "float32"), [i])
            for part in inside:
                left = tile.registers(group, part)
                for column in range(columns):
                    into = [parted[base + 4 * column + i] for i in range(4)]
                    words = right[part][2 * column : 2 * column + 2]
                    multiply(KINDS[tile.dtype], into, left, words)
            if apart:
                scales = tile.scales(group)
                for i in range(count):
                    total = sums[start + i] + parted[i] * scales[i // 2 % 2]
                    T.buffer_store(sums, total, [start + i])
