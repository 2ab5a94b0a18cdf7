"""Which tiles a block makes, in which order.

Blocks live as long as the kernel: there are as many as multiprocessors, and each takes every n-th
tile. Tiles are numbered so that those in work at one time form a compact rectangle: `group` rows of
tiles, column by column, then the next rows. What they read is then in the cache.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from tvm import tirx
from tvm.tirx.script import builder

from ..intrinsics.registers import held
from .plan import Plan

#: TVM's builder; its annotations are narrower than what it gives.
T: Any = builder


def ceil_div(value: Any, by: int) -> Any:
    """Of an int32 that is not negative."""
    return tirx.truncdiv(value + (by - 1), by)


@dataclasses.dataclass(frozen=True, eq=False)
class Walk:
    """The tiles of one block.

    Attributes:
        plan: the kernel.
        down: clusters' tiles one below the other, int32.
        across: and side by side.
        first: the number of the first that is this block's.
        stride: from one to its next.
        rank: of the block in its cluster.
    """

    plan: Plan
    down: Any
    across: Any
    first: Any
    stride: Any
    rank: Any

    @staticmethod
    def grid(plan: Plan, m: Any) -> Any:
        """How many blocks there are, for the launch."""
        down, across = _counts(plan, m)
        tiles = down * across
        if plan.sizes.split > 1:
            return tiles * plan.sizes.split
        clusters = plan.architecture.multiprocessors // plan.sizes.cluster
        return tirx.Min(tiles, tirx.const(clusters, "int32")) * plan.sizes.cluster

    @staticmethod
    def start(plan: Plan, m: Any, block: Any) -> Walk:
        """The walk of block number `block`."""
        down, across = (held(count) for count in _counts(plan, m))
        size = plan.sizes.cluster
        rank = held(tirx.truncmod(block, size)) if size > 1 else tirx.const(0, "int32")
        first = held(tirx.truncdiv(block, size)) if size > 1 else block
        clusters = tirx.const(plan.architecture.multiprocessors // size, "int32")
        return Walk(plan, down, across, first, tirx.Min(down * across, clusters), rank)

    @property
    def count(self) -> Any:
        """How many tiles the block makes."""
        if self.plan.sizes.split > 1:
            return tirx.const(1, "int32")
        remaining = self.down * self.across - self.first
        return tirx.truncdiv(remaining + (self.stride - 1), self.stride)

    def place(self, number: Any) -> tuple[Any, Any]:
        """Row and column, int32, of the first element of the block's tile `number`."""
        sizes = self.plan.sizes
        tile = self.first if sizes.split > 1 else held(self.first + number * self.stride)
        in_group = self.across * sizes.group
        group = held(tirx.truncdiv(tile, in_group))
        inside = held(tile - group * in_group)
        above = held(group * sizes.group)
        height = held(tirx.Min(self.down - above, tirx.const(sizes.group, "int32")))
        column = held(tirx.truncdiv(inside, height))
        row = above + inside - column * height
        return (
            held((row * sizes.cluster_rows + self.row_rank) * sizes.rows),
            held((column * sizes.cluster_columns + self.column_rank) * sizes.columns),
        )

    @property
    def row_rank(self) -> Any:
        """The block's row in a cluster that shares loads."""
        zero = tirx.const(0, "int32")
        return self.rank if self.plan.sizes.cluster_rows > 1 else zero

    @property
    def column_rank(self) -> Any:
        """The block's column in a cluster that shares loads."""
        zero = tirx.const(0, "int32")
        return self.rank if self.plan.sizes.cluster_columns > 1 else zero

    @property
    def first_step(self) -> Any:
        """The first tile of K that the block adds."""
        if self.plan.sizes.split == 1:
            return tirx.const(0, "int32")
        return self._step_of(self.rank)

    @property
    def steps(self) -> Any:
        """How many tiles of K the block adds."""
        if self.plan.sizes.split == 1:
            return tirx.const(self.plan.steps, "int32")
        return self._step_of(self.rank + 1) - self._step_of(self.rank)

    def _step_of(self, rank: Any) -> Any:
        """Where the share of a block of a split begins: shares differ by one at most."""
        return tirx.truncdiv(rank * self.plan.steps, self.plan.sizes.split)


def _counts(plan: Plan, m: Any) -> tuple[Any, Any]:
    sizes = plan.sizes
    rows, columns = plan.extents(m)
    return (
        ceil_div(rows, sizes.rows * sizes.cluster_rows),
        ceil_div(columns, sizes.columns * sizes.cluster_columns),
    )
