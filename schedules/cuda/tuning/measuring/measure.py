"""Measures a plan, case by case, and writes a record for each as soon as it is known."""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from .halving import successive_halving
from .plan import Case, Plan
from .process import Worker, WorkerLost

#: Told the case, how many steps of it are done, and of how many.
Steps = Callable[[int, int, int], None]


@dataclasses.dataclass(frozen=True)
class Settings:
    """How to measure.

    Attributes:
        rounds, repeats: of successive halving.
        warm: seconds of work before each round, for the clocks.
        flush: bytes copied before each run; None for twice the second cache.
        patience: seconds that one run may take.
        tracker: host, port and key of a TVM tracker; None for this machine's GPU.
        prepare: ``module:function``, called before TVM is loaded; see `gpu.cuda_functions`.
        kind: of the device behind a tracker.
    """

    rounds: int = 4
    repeats: int = 5
    warm: float = 0.2
    flush: int | None = None
    patience: float = 60.0
    tracker: tuple[str, int, str] | None = None
    prepare: str | None = None
    kind: str = "cuda"


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What came of a case.

    Attributes:
        case: its number.
        record: a line of the records' file as a dictionary; None where even the first candidate
            could not be measured.
        failures: candidates that failed, and why.
    """

    case: int
    record: dict[str, Any] | None
    failures: dict[str, str]


class Session:
    """A plan on a GPU, through as many worker processes as it takes.

    Args:
        folder: of the plan.
        plan: what to measure.
        settings: how.

    Raises:
        WorkerLost: there is no GPU, or it cannot be used.
    """

    def __init__(self, folder: Path, plan: Plan, settings: Settings) -> None:
        self._folder, self._plan, self._settings = folder, plan, settings
        self._worker: Worker | None = self._started()
        self.card, self.capability = self._worker.card, self._worker.capability

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self._drop()

    def measure(self, cases: Sequence[int], steps: Steps = lambda *_: None) -> Iterator[Outcome]:
        """Measure some cases of the plan that this GPU runs, one by one."""
        for number in cases:
            if self._plan.cases[number].runs_on(self.capability):
                yield self._measured(number, steps)

    def _measured(self, number: int, steps: Steps) -> Outcome:
        case = self._plan.cases[number]
        failures: dict[int, str] = {}
        done, total = 0, len(case.candidates) + self._settings.rounds

        def step() -> None:
            nonlocal done
            done += 1
            steps(number, done, total)

        right: list[int] = []
        for candidate in range(len(case.candidates)):
            if candidate and 0 in failures:
                break
            reason = self._checked(number, candidate, right)
            if reason is None:
                right.append(candidate)
            else:
                failures[candidate] = reason
            step()

        def times(alive: Sequence[int], repeats: int) -> dict[int, list[float]]:
            found = self._timed(number, alive, repeats, failures)
            step()
            return found

        ranking = None
        if 0 in right:
            settings = self._settings
            ranking = successive_halving(right, times, settings.rounds, settings.repeats)
        steps(number, total, total)
        words = {case.candidates[place].title: reason for place, reason in failures.items()}
        if ranking is None:
            return Outcome(number, None, words)
        return Outcome(number, self._record(case, ranking.best, ranking.seconds), words)

    def _checked(self, number: int, candidate: int, right: Sequence[int]) -> str | None:
        """Why a candidate is of no use, or None; `right` are those that are in the worker."""
        try:
            worker = self._ready(number, right)
            apart = worker.ask("check", candidate=candidate)["distance"]
        except WorkerLost as error:
            self._drop()
            return str(error)
        tolerance = self._plan.cases[number].tolerance
        return None if apart <= tolerance else f"results differ by {apart:.1e} of the largest"

    def _timed(
        self, number: int, alive: Sequence[int], repeats: int, failures: dict[int, str]
    ) -> dict[int, list[float]]:
        """Times of those that can be run; the others are failures."""
        left = list(alive)
        while left and 0 in left:
            try:
                worker = self._ready(number, left)
                worker.ask("warm", seconds=self._settings.warm)
                answer = worker.ask("measure", candidates=left, repeats=repeats)["times"]
                return {int(place): [float(s) for s in seen] for place, seen in answer}
            except WorkerLost as error:
                self._drop()
                guilty = error.at if error.at in left else 0
                failures[guilty] = str(error)
                left.remove(guilty)
        return {}

    def _ready(self, number: int, loaded: Sequence[int]) -> Worker:
        """A worker that has the case's arguments, and has run what is right."""
        if self._worker is not None and self._open == number:
            return self._worker
        self._worker = self._worker or self._started()
        self._worker.ask("open", number=number)
        for candidate in loaded:
            self._worker.ask("check", candidate=candidate)
        self._open = number
        return self._worker

    def _started(self) -> Worker:
        settings = self._settings
        options = {
            "flush": settings.flush, "prepare": settings.prepare, "tracker": settings.tracker,
            "kind": settings.kind,
        }  # fmt: skip
        self._open: int | None = None
        return Worker(self._folder, options, settings.patience)

    def _drop(self) -> None:
        if self._worker is not None:
            self._worker.close()
            self._worker = None

    def _record(self, case: Case, best: int, seconds: dict[int, float]) -> dict[str, Any]:
        chosen = case.candidates[best]
        return {
            "version": 1,
            "problem": case.problem,
            "architecture": case.architecture,
            "card": self.card,
            "bucket": case.bucket,
            "rows": case.rows,
            "template": chosen.template,
            "sizes": dict(chosen.sizes),
            "seconds": seconds[best],
            "model_seconds": seconds[0],
            "trials": len(seconds),
            "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        }
