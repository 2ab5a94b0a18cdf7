"""Finds the best sizes of one kernel by measurement.

All candidates are built and run once; the faster half goes on, several rounds, so that the closest
rivals are measured most often, and a busy moment of the machine
hits all alike. What counts is the least time of all rounds. The rule's sizes are always there: they
say what results are right, and they stay where nothing beats them clearly.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Mapping, Sequence

from .bench import Bench, name_of
from .choices import Site, Sizes
from .database import Cpu, Record
from .space import candidates

#: Rounds of measurement, each with half the candidates of the one before.
_ROUNDS = 4
#: Fewer candidates than these are not halved further.
_FINALISTS = 3
#: Sizes have to be that much faster than the rule's to take their place.
_MARGIN = 0.98

#: Told how many of how many steps of a workload are done.
Steps = Callable[[int, int], None]


@dataclasses.dataclass
class _Candidate:
    sizes: Sizes
    artifact: str
    jobs: list[int]
    seconds: list[float]

    def ratio(self, rule: _Candidate) -> float:
        """Time in units of the rule's, the geometric mean over the bindings."""
        logs = [math.log(a / b) for a, b in zip(self.seconds, rule.seconds, strict=True)]
        return math.exp(sum(logs) / len(logs))


@dataclasses.dataclass(frozen=True)
class Trial:
    """What came of one workload.

    Attributes:
        record: the result; None where even the rule's sizes could not be measured.
        failures: sizes that failed, and why.
    """

    record: Record | None
    failures: dict[Sizes, str]


def try_sizes(
    site: Site,
    bench: Bench,
    cpu: Cpu,
    bindings: Sequence[Mapping[str, int]],
    limit: int,
    steps: Steps,
) -> Trial:
    """Measure a workload's candidates.

    Args:
        site: any place where the workload is computed.
        bench: where they are built and run.
        cpu: what for.
        bindings: sizes of symbolic dimensions; all count alike.
        limit: how many candidates.
        steps: told about progress.
    """
    sizes = candidates(site, bindings, limit)
    total = len(sizes) * 2 + _later_runs(len(sizes))
    variants = [site.build(one) for one in sizes]
    failures: dict[Sizes, str] = {}
    alive: list[_Candidate] = []
    key = site.workload.key
    for one, variant, (artifact, problem) in zip(
        sizes, variants, bench.build(variants), strict=True
    ):
        if artifact is None:
            failures[one] = problem or "not built"
            continue
        jobs = [
            bench.job(variant, binding, expected=name_of(key, binding), leads=one == site.rule)
            for binding in bindings
        ]
        alive.append(_Candidate(one, artifact, jobs, [math.inf] * len(jobs)))
    done = len(sizes)
    steps(done, total)
    rule = alive[0] if alive and alive[0].sizes == site.rule else None
    if rule is None:
        return Trial(None, failures)
    for _ in range(_ROUNDS):
        for group in _groups(alive, bench.width):
            problems = _measure(bench, group)
            done += len(group)
            steps(min(done, total), total)
            for candidate, problem in problems:
                failures[candidate.sizes] = problem
                alive.remove(candidate)
        if rule not in alive:
            return Trial(None, failures)
        alive.sort(key=lambda candidate: candidate.ratio(rule))
        kept = alive[: max(_FINALISTS, len(alive) // 2)]
        alive = [rule, *(candidate for candidate in kept if candidate is not rule)]
    steps(total, total)
    best = min(alive, key=lambda candidate: candidate.ratio(rule))
    if best.ratio(rule) > _MARGIN:
        best = rule
    record = Record(
        workload=key, title=site.workload.title, facts=json.loads(site.workload.facts),
        cpu=cpu.key, bindings=tuple(dict(binding) for binding in bindings),
        rule=site.rule, rule_us=_microseconds(rule), sizes=best.sizes,
        best_us=_microseconds(best), trials=len(sizes),
    )  # fmt: skip
    return Trial(record, failures)


def _groups(alive: Sequence[_Candidate], width: int) -> list[Sequence[_Candidate]]:
    """What runs together: the rule's sizes alone, as the others' results are compared with its."""
    rest = alive[1:]
    return [alive[:1], *(rest[i : i + width] for i in range(0, len(rest), width))]


def _measure(bench: Bench, group: Sequence[_Candidate]) -> list[tuple[_Candidate, str]]:
    """Run candidates once with every binding; those that failed, and why."""
    runs = [(one, number) for one in group for number in range(len(one.jobs))]
    outcomes = bench.run([(one.artifact, one.jobs[number]) for one, number in runs])
    failed: dict[int, tuple[_Candidate, str]] = {}
    for (one, number), outcome in zip(runs, outcomes, strict=True):
        if outcome.seconds is None:
            failed.setdefault(id(one), (one, outcome.problem or "not run"))
        else:
            one.seconds[number] = min(one.seconds[number], outcome.seconds)
    return list(failed.values())


def _later_runs(count: int) -> int:
    """Runs of all rounds but the first, about."""
    runs = 0
    for _ in range(_ROUNDS - 1):
        count = max(min(_FINALISTS, count), count // 2)
        runs += count
    return runs


def _microseconds(candidate: _Candidate) -> tuple[float, ...]:
    return tuple(round(seconds * 1e6, 2) for seconds in candidate.seconds)
