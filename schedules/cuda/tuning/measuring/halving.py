"""Which of several kernels is fastest, with most measurements spent on the closest rivals."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Callable, Sequence

#: Fewer than these are not halved further.
_FINALISTS = 3
#: The first is only replaced by something that is at least that much faster.
_MARGIN = 0.98

#: Measures some candidates, each so many times: new times of those that ran.
Measure = Callable[[Sequence[int], int], dict[int, list[float]]]


@dataclasses.dataclass(frozen=True)
class Ranking:
    """What came of it.

    Attributes:
        best: a candidate; 0 stays where nothing is clearly faster.
        seconds: medians of all that were measured.
    """

    best: int
    seconds: dict[int, float]


def successive_halving(
    candidates: Sequence[int], measure: Measure, rounds: int = 4, repeats: int = 5
) -> Ranking | None:
    """Measure all a few times, the faster half twice as often, and so on.

    Args:
        candidates: in the order that ties are settled in; 0 is the one that the others have to
            beat, and in every round.
        measure: leaves out what failed; that is not asked for again.
        rounds: how many.
        repeats: runs of each in the first round.

    Returns:
        None where candidate 0 could not be measured.
    """
    times: dict[int, list[float]] = {candidate: [] for candidate in candidates}
    alive = list(candidates)
    for number in range(rounds):
        found = measure(alive, repeats << number)
        for candidate, new in found.items():
            times[candidate] += new
        alive = [candidate for candidate in alive if found.get(candidate)]
        if 0 not in alive:
            return None
        alive.sort(key=lambda candidate: statistics.median(times[candidate]))
        kept = alive[: max(_FINALISTS, (len(alive) + 1) // 2)]
        alive = [c for c in candidates if c in kept or c == 0]
    seconds = {c: statistics.median(seen) for c, seen in times.items() if seen}
    best = min(alive, key=lambda candidate: seconds[candidate])
    return Ranking(best if seconds[best] <= _MARGIN * seconds[0] else 0, seconds)
