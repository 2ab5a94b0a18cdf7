"""Successive halving finds the fastest, and asks for no more than it needs."""

from __future__ import annotations

from collections.abc import Sequence

from fewbits.schedules.cuda.tuning.measuring.halving import successive_halving
from hypothesis import given
from hypothesis import strategies as st


class Clock:
    """Candidates with known times; some fail after so many runs."""

    def __init__(self, seconds: Sequence[float], failing: dict[int, int] | None = None) -> None:
        self.seconds, self.failing = seconds, failing or {}
        self.runs = dict.fromkeys(range(len(seconds)), 0)

    def __call__(self, alive: Sequence[int], repeats: int) -> dict[int, list[float]]:
        found = {}
        for candidate in alive:
            self.runs[candidate] += repeats
            if self.runs[candidate] <= self.failing.get(candidate, 1 << 30):
                found[candidate] = [self.seconds[candidate]] * repeats
        return found


@given(st.lists(st.integers(1, 1000), min_size=1, max_size=40))
def test_the_fastest_wins_where_it_is_clearly_faster(times: list[int]) -> None:
    clock = Clock([float(time) for time in times])
    ranking = successive_halving(range(len(times)), clock)
    assert ranking is not None
    if min(times) <= 0.98 * times[0]:
        assert times[ranking.best] == min(times)
        assert ranking.best == times.index(min(times))
    else:
        assert ranking.best == 0
    assert ranking.seconds == dict(enumerate(clock.seconds))


def test_most_runs_are_the_finalists() -> None:
    clock = Clock([5.0 + place for place in range(16)])
    successive_halving(range(16), clock, rounds=4, repeats=5)
    assert clock.runs[15] == 5
    assert clock.runs[0] == clock.runs[1] == 5 + 10 + 20 + 40
    assert sum(clock.runs.values()) == 16 * 5 + 8 * 10 + 4 * 20 + 3 * 40


def test_the_first_is_never_left_out() -> None:
    clock = Clock([100.0, *(1.0 + place for place in range(15))])
    ranking = successive_halving(range(16), clock)
    assert ranking is not None and ranking.best == 1
    assert clock.runs[0] == clock.runs[1]


def test_what_fails_is_not_asked_again() -> None:
    clock = Clock([4.0, 1.0, 2.0, 3.0], failing={1: 5})
    ranking = successive_halving(range(4), clock, rounds=4, repeats=5)
    assert ranking is not None and ranking.best == 2
    assert clock.runs[1] == 15  # it failed in the second round


def test_without_the_first_there_is_no_result() -> None:
    assert successive_halving(range(3), Clock([1.0, 2.0, 3.0], failing={0: 5})) is None
