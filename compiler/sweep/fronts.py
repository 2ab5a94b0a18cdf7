"""Which cells are worth their bits: the Pareto front, and the best width for each budget.

Two questions are kept apart. A budget buys whole models, so `budgets` compares what there is. The
paper (spec 1) compares curves over a family's sizes, so `at_equal_bits` reads every curve at the
same number of bits, between the sizes that were tried.
"""

from __future__ import annotations

import dataclasses
import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from typing import Any

from .quality import LOWER_IS_BETTER

Row = Mapping[str, Any]
_WIDEST_CODE = 8


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


def curves(rows: Sequence[Row], cost: str) -> list[list[Row]]:
    """Rows that differ only in the model, cheapest first: one curve per width, family, ..."""
    found: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        key = tuple(row[name] for name in ("bits", "family", "block", "solver", "recipe", "target"))
        found.setdefault(key, []).append(row)
    return [sorted(curve, key=lambda row: row[cost]) for curve in found.values()]


@dataclasses.dataclass(frozen=True)
class Reading:
    """Curves read at one number of bits.

    Attributes:
        bits: where.
        loss: by width: the least loss of that width's curves.
        curve: by width: the curve that it is from.
    """

    bits: float
    loss: Mapping[int, float]
    curve: Mapping[int, Sequence[Row]]


def at_equal_bits(rows: Sequence[Row], cost: str, per_octave: int = 1) -> list[Reading]:
    """The best curve of each width at numbers of bits that double, without extrapolation.

    Between two sizes of a family the loss is taken to be linear in the logarithm of the bits. Read
    is only where every width of a code (8 bits or less) has a curve: elsewhere the family has no
    model small or large enough, and widths would win for want of others.
    """
    lines = [curve for curve in curves(rows, cost) if len(curve) > 1 and curve[0]["bits"]]
    needed = {line[0]["bits"] for line in lines if line[0]["bits"] <= _WIDEST_CODE}
    if not lines:
        return []
    low = math.ceil(per_octave * math.log2(min(line[0][cost] for line in lines)))
    high = math.floor(per_octave * math.log2(max(line[-1][cost] for line in lines)))
    readings = []
    for step in range(low, high + 1):
        bits = 2 ** (step / per_octave)
        loss: dict[int, float] = {}
        best: dict[int, Sequence[Row]] = {}
        for line in lines:
            width, value = line[0]["bits"], _read(line, cost, bits)
            if value is not None and value < loss.get(width, math.inf):
                loss[width], best[width] = value, line
        if len(loss) > 1 and needed <= loss.keys():
            readings.append(Reading(bits, dict(sorted(loss.items())), best))
    return readings


def _read(line: Sequence[Row], cost: str, bits: float) -> float | None:
    """The loss of a curve at that many bits, None beyond its ends."""
    costs = [row[cost] for row in line]
    if not costs[0] <= bits <= costs[-1]:
        return None
    after = min(bisect_right(costs, bits), len(costs) - 1)
    left, right = line[after - 1], line[after]
    if left[cost] == right[cost]:
        return min(loss_of(left), loss_of(right))
    share = math.log(bits / left[cost]) / math.log(right[cost] / left[cost])
    return (1 - share) * loss_of(left) + share * loss_of(right)
