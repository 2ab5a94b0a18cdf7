"""The sizes of a product's inner kernel: what a tuner varies and a record holds."""

from __future__ import annotations

import dataclasses

from .machine import Machine

#: Rows beyond this gain nothing: loads no longer limit the loop.
_MOST_ROWS = 14
#: How much slower than three vectors the kernel is with that many (measured on float32, AVX-512).
_SLOWER = {1: 1.35, 2: 1.03, 3: 1.0}
#: The rows of one task, times what is summed over, should stay in the second cache.
_BLOCK_ELEMENTS = 3 << 15


@dataclasses.dataclass(frozen=True)
class Tile:
    """Sizes of one product.

    Attributes:
        rows: output rows whose accumulators are in registers together.
        vectors: vector registers of output columns in each of those rows.
        block: rows that one task computes, a multiple of `rows`.
    """

    rows: int
    vectors: int
    block: int

    def columns(self, machine: Machine) -> int:
        """Output columns of the kernel."""
        return self.vectors * machine.lanes


def default_tile(
    machine: Machine, rows: int | None, columns: int | None, summed: int | None
) -> Tile:
    """A tile for a product, by rule.

    Args:
        machine: the registers.
        rows: the output's rows, None where only known at run time.
        columns: the output's columns, None where only known at run time.
        summed: terms of each sum, None where only known at run time.
    """
    vectors = 2 if columns is None else min(_SLOWER, key=lambda v: _cost(v, columns, machine))
    most = min((machine.registers - vectors - 1) // vectors, _MOST_ROWS)
    if rows is None:
        high = most - most % 4 if most >= 4 else most
    elif rows <= most:
        high = max(rows, 1)
    else:
        high = min(range(max(most // 2, 1), most + 1), key=lambda r: (-(-rows // r) * r, -r))
    fitting = _BLOCK_ELEMENTS // (summed or 512)
    return Tile(high, vectors, max(fitting // high, 4) * high)


def _cost(vectors: int, columns: int, machine: Machine) -> float:
    width = vectors * machine.lanes
    return -(-columns // width) * width * _SLOWER[vectors]
