"""The search with a fake clock: what wins, what fails, what is asked how often."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from fewbits.schedules.tuning.bench import Bench
from fewbits.schedules.tuning.choices import Site
from fewbits.schedules.tuning.database import Cpu
from fewbits.schedules.tuning.space import candidates
from fewbits.schedules.tuning.trials import Trial, try_sizes
from tuning_fakes import only_site, product_module
from tvm import tirx

CPU = Cpu("x86-64-v3", (), 2)
BINDINGS = [{"N": 40}]


@pytest.fixture(scope="module")
def site() -> Site:
    return only_site(product_module(tirx.Var("N", "int64"), 64, 96))


def tried(site: Site, bench: Bench, limit: int = 8, bindings: Any = BINDINGS) -> Trial:
    steps: list[tuple[int, int]] = []
    trial = try_sizes(site, bench, CPU, bindings, limit, lambda *step: steps.append(step))
    assert steps == sorted(steps)
    assert all(done <= total for done, total in steps)
    return trial


def test_the_fastest_wins(site: Site, fake_bench: Callable[..., Bench]) -> None:
    trial = tried(site, fake_bench(lambda kernel, _: 1e-3 if kernel == 5 else 2e-3))
    sizes = candidates(site, BINDINGS, 8)
    record = trial.record
    assert record is not None and trial.failures == {}
    assert record.sizes == sizes[5] and record.rule == sizes[0] == site.rule
    assert record.rule_us == (2000.0,) and record.best_us == (1000.0,)
    assert (record.trials, record.bindings) == (8, ({"N": 40},))
    assert record.workload == site.workload.key


@pytest.mark.parametrize(("seconds", "wins"), [(0.99e-3, False), (0.9e-3, True)])
def test_the_rule_stays_unless_it_is_clearly_beaten(
    site: Site, fake_bench: Callable[..., Bench], seconds: float, wins: bool
) -> None:
    record = tried(site, fake_bench(lambda kernel, _: 1e-3 if kernel != 3 else seconds)).record
    assert record is not None
    assert (record.sizes != record.rule) == wins


def test_one_slow_moment_does_not_decide(site: Site, fake_bench: Callable[..., Bench]) -> None:
    def answer(kernel: int, run: int) -> float:
        true = 1e-3 if kernel == 1 else 2e-3
        return true * (1.5 if run == 0 else 1.0)

    record = tried(site, fake_bench(answer)).record
    assert record is not None
    assert record.sizes == candidates(site, BINDINGS, 8)[1]
    assert record.best_us == (1000.0,)


def test_what_fails_cannot_win(site: Site, fake_bench: Callable[..., Bench]) -> None:
    def answer(kernel: int, run: int) -> float | str:
        if kernel == 2:
            return "Traceback\n  somewhere\nValueError: results differ by 1e+00"
        if kernel == 3 and run:
            return "LocalRunner: Timeout"
        return {2: 1e-6, 3: 1e-5}.get(kernel, 1e-3 + kernel * 1e-5)

    trial = tried(site, fake_bench(answer, frozenset({4})))
    sizes = candidates(site, BINDINGS, 8)
    assert trial.failures == {
        sizes[2]: "ValueError: results differ by 1e+00",
        sizes[3]: "LocalRunner: Timeout",
        sizes[4]: "Syntax error",
    }
    assert trial.record is not None and trial.record.sizes == site.rule


@pytest.mark.parametrize("broken", [frozenset({0}), frozenset()])
def test_nothing_is_recorded_without_the_rule(
    site: Site, fake_bench: Callable[..., Bench], broken: frozenset[int]
) -> None:
    trial = tried(site, fake_bench(lambda kernel, _: 1e-3 if kernel else "crashed", broken))
    assert trial.record is None
    assert site.rule in trial.failures


def test_all_sizes_of_a_dimension_count(site: Site, fake_bench: Callable[..., Bench]) -> None:
    # Jobs alternate between the bindings: the second kernel gains at one and loses at the other.
    def answer(kernel: int, run: int) -> float:
        return {1: (1e-4, 1e-1), 2: (8e-4, 8e-4)}.get(kernel, (1e-3, 1e-3))[run % 2]

    bindings = [{"N": 1}, {"N": 64}]
    record = tried(site, fake_bench(answer), 4, bindings).record
    assert record is not None
    assert record.sizes == candidates(site, bindings, 4)[2]
    assert record.best_us == (800.0, 800.0)


def test_rivals_are_measured_most_often(site: Site, fake_bench: Callable[..., Bench]) -> None:
    bench = fake_bench(lambda kernel, _: 1e-3 * (kernel + 1))
    tried(site, bench, 16)
    runs: Any = bench.runner.runs
    assert runs[0] == runs[1] == 4
    assert runs[15] == 1


def test_one_trial_is_the_rule(site: Site, fake_bench: Callable[..., Bench]) -> None:
    record = tried(site, fake_bench(lambda *_: 1e-3), 1).record
    assert record is not None and record.sizes == site.rule and record.trials == 1
