"""Which cells are worth their bits: the Pareto front, and the best width for each budget."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

from .quality import LOWER_IS_BETTER

Row = Mapping[str, Any]


def loss_of(row: Row) -> float:
    """The row's quality so that less is better."""
    return row["quality"] if row["metric"] in LOWER_IS_BETTER else -row["quality"]


def pareto_front(rows: Sequence[Row], cost: str) -> list[Row]:
    """Rows that no other beats in both quality and cost, cheapest first.

    Of rows that are equal in both, the first counts.
    """
    front: list[Row] = []
    for row in sorted(rows, key=lambda row: (row[cost], loss_of(row))):
        if not front or loss_of(row) < loss_of(front[-1]):
            front.append(row)
    return front


@dataclasses.dataclass(frozen=True)
class Budget:
    """What a number of bits buys.

    Attributes:
        bits: the budget.
        best: the best row within it.
        by_width: the best row of each width that has one within it.
    """

    bits: int
    best: Row
    by_width: Mapping[int, Row]


def budgets(rows: Sequence[Row], cost: str, per_octave: int = 1) -> list[Budget]:
    """The best row, and the best of each width, for budgets that double (`per_octave` = 1).

    Budgets are powers of two (or roots of them) from the cheapest row to the dearest. Rows without
    a width (whole recipes) compete for the best only.
    """
    if not rows:
        return []
    low = math.ceil(per_octave * math.log2(max(1, min(row[cost] for row in rows))))
    high = math.ceil(per_octave * math.log2(max(1, max(row[cost] for row in rows))))
    found = []
    for step in range(low, high + 1):
        bits = round(2 ** (step / per_octave))
        within = [row for row in rows if row[cost] <= bits]
        if not within:
            continue
        widths = sorted({row["bits"] for row in within if row["bits"] is not None})
        by_width = {
            width: min((row for row in within if row["bits"] == width), key=loss_of)
            for width in widths
        }
        found.append(Budget(bits, min(within, key=loss_of), by_width))
    return found
