"""Fronts and budgets against brute force and curves that are known."""

from __future__ import annotations

import math
from typing import Any

import pytest
from fewbits.compiler.sweep.fronts import at_equal_bits, budgets, loss_of, pareto_front
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st


def row(bits: int, cost: int, quality: float, metric: str = "nats", **changes: Any) -> dict:
    return {"bits": bits, "total_bits": cost, "quality": quality, "metric": metric,
            "family": "int", "block": "64", "solver": "rtn", "recipe": "grid", "target": "",
            "model": "m", **changes}  # fmt: skip


# A busy machine draws slowly; that says nothing about the test.
patient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
ROWS = st.lists(
    st.builds(row, st.sampled_from([3, 4, 8]), st.integers(1, 60), st.integers(0, 12).map(float)),
    min_size=1,
    max_size=25,
)


@patient
@given(ROWS, st.sampled_from(["nats", "accuracy"]))
def test_front_is_what_nothing_beats(rows: list[dict], metric: str) -> None:
    rows = [{**r, "metric": metric} for r in rows]
    front = pareto_front(rows, "total_bits")

    def beats(a: dict, b: dict) -> bool:
        no_worse = a["total_bits"] <= b["total_bits"] and loss_of(a) <= loss_of(b)
        return no_worse and (a["total_bits"], loss_of(a)) != (b["total_bits"], loss_of(b))

    wanted = {(r["total_bits"], r["quality"]) for r in rows if not any(beats(o, r) for o in rows)}
    assert [(r["total_bits"], r["quality"]) for r in front] == sorted(wanted)


@patient
@given(ROWS, st.sampled_from([1, 4]))
def test_budgets_buy_the_best(rows: list[dict], per_octave: int) -> None:
    found = budgets(rows, "total_bits", per_octave)
    assert found[-1].bits >= max(r["total_bits"] for r in rows)
    assert [b.bits for b in found] == sorted(b.bits for b in found)
    for budget in found:
        within = [r for r in rows if r["total_bits"] <= budget.bits]
        assert budget.best["quality"] == min(r["quality"] for r in within)
        for width, best in budget.by_width.items():
            assert best["quality"] == min(r["quality"] for r in within if r["bits"] == width)
        assert set(budget.by_width) == {r["bits"] for r in within}


def test_whole_recipes_compete_without_a_width() -> None:
    (budget,) = budgets([row(4, 8, 2.0), row(4, 8, 1.0) | {"bits": None}], "total_bits")
    assert budget.best["bits"] is None and list(budget.by_width) == [4]
    assert budgets([], "total_bits") == []


def test_curves_are_read_between_sizes() -> None:
    # loss = 10 - log2(weights), plus damage: 0.5 at 3 bits, 0.02 at 4, none at 8.
    damage = {3: 0.5, 4: 0.02, 8: 0.0}
    rows = [
        row(k, k << n, 10 - n + damage[k], model=f"m{n}") for k in damage for n in (10, 12, 13, 16)
    ]
    found = at_equal_bits(rows, "total_bits", per_octave=4)
    assert found[0].bits >= 8 << 10 and found[-1].bits <= 3 << 16
    for reading in found:
        for k, loss in reading.loss.items():
            assert loss == pytest.approx(10 - math.log2(reading.bits / k) + damage[k])
        assert min(reading.loss, key=lambda k: reading.loss[k]) == 4
        assert all(r["bits"] == 4 for r in reading.curve[4])


def test_readings_need_every_width_of_codes() -> None:
    rows = [row(k, k << n, 1.0, model=f"m{n}") for k in (4, 8, 16) for n in (4, 8)]
    found = at_equal_bits(rows, "total_bits")
    # From the smallest model at 8 bits to the largest at 4; 16 bits where they are.
    assert [reading.bits for reading in found] == [128, 256, 512, 1024]
    assert [16 in reading.loss for reading in found] == [False, True, True, True]
    assert at_equal_bits([row(4, 8, 1.0)], "total_bits") == []
