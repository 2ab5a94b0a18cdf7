"""Who runs the cells: processes on this machine, behind an interface that a cluster serves as well.

Each worker is a process of its own with a limit on memory and threads. One that dies takes its cell
with it and nothing else: a new one takes its place.
"""

from __future__ import annotations

import contextlib
import dataclasses
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from multiprocessing.connection import Connection, wait
from typing import Any, Protocol

from .work import failure, run_cell

Job = Mapping[str, Any]
Outcome = dict[str, Any]
#: Environment variables with which numerical libraries learn how many threads to take.
_THREAD_VARIABLES = (
    "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "TVM_NUM_THREADS",
)  # fmt: skip


class Executor(Protocol):
    """Runs jobs in any order and says what became of each."""

    def run(self, jobs: Sequence[Job]) -> Iterator[tuple[Job, Outcome]]:
        """Pairs of job and outcome, as they end. Closing the iterator ends what still runs."""
        ...


@dataclasses.dataclass(frozen=True)
class Limits:
    """What one worker may take.

    Attributes:
        threads: for numerical libraries.
        memory: bytes of data, None for no limit.
        seconds: for one cell, None for no limit.
    """

    threads: int = 1
    memory: int | None = None
    seconds: float | None = None

    def environment(self) -> dict[str, str]:
        """Variables of a worker's environment."""
        return dict.fromkeys(_THREAD_VARIABLES, str(self.threads))

    def apply(self) -> None:
        """Put limits on this process; those on threads are in its environment."""
        if self.memory is not None:
            import resource

            # Data, not address space: libraries reserve far more of that than they use.
            resource.setrlimit(resource.RLIMIT_DATA, (self.memory, self.memory))


@dataclasses.dataclass
class _Worker:
    process: Any
    connection: Connection
    job: Job | None = None
    deadline: float | None = None


class LocalExecutor:
    """Worker processes on this machine.

    Args:
        workers: how many.
        limits: of each.
        work: what is done with a job; importable, because workers start from nothing.
    """

    def __init__(
        self,
        workers: int,
        limits: Limits | None = None,
        work: Callable[[Job], Outcome] = run_cell,
    ) -> None:
        self.workers, self.limits, self.work = workers, limits or Limits(), work
        self._spawn = multiprocessing.get_context("spawn")

    def run(self, jobs: Sequence[Job]) -> Iterator[tuple[Job, Outcome]]:
        """See `Executor`."""
        waiting = list(reversed(jobs))
        crew: list[_Worker] = []
        try:
            while waiting or any(worker.job is not None for worker in crew):
                busy = sum(worker.job is not None for worker in crew)
                while len(crew) < min(self.workers, busy + len(waiting)):
                    crew.append(self._start())
                for worker in crew:
                    if worker.job is None and waiting:
                        self._give(worker, waiting.pop())
                yield from self._ended(crew)
        finally:
            for worker in crew:
                self._stop(worker)

    def _start(self) -> _Worker:
        ours, theirs = self._spawn.Pipe()
        process = self._spawn.Process(
            target=_serve, args=(theirs, self.work, self.limits), daemon=True
        )
        with _environment(self.limits.environment()):
            process.start()
        theirs.close()
        return _Worker(process, ours)

    def _give(self, worker: _Worker, job: Job) -> None:
        worker.job = job
        if self.limits.seconds is not None:
            worker.deadline = time.monotonic() + self.limits.seconds
        with contextlib.suppress(BrokenPipeError):  # it has died: `_ended` finds that
            worker.connection.send(job)

    def _ended(self, crew: list[_Worker]) -> Iterator[tuple[Job, Outcome]]:
        """Wait until something happens; what has ended. Dead workers leave the crew."""
        deadlines = [worker.deadline for worker in crew if worker.deadline is not None]
        timeout = max(0.0, min(deadlines) - time.monotonic()) if deadlines else None
        ready = wait([worker.connection for worker in crew], timeout)
        for worker in list(crew):
            job, outcome = worker.job, None
            if worker.connection in ready:
                try:
                    outcome = worker.connection.recv()
                    worker.job = worker.deadline = None
                except (EOFError, OSError):
                    worker.process.join()
                    crew.remove(worker)
                    outcome = failure("worker-died", _last_words(worker.process.exitcode))
            elif worker.deadline is not None and time.monotonic() >= worker.deadline:
                self._stop(worker)
                crew.remove(worker)
                outcome = failure("timeout", f"stopped after {self.limits.seconds:g} s")
            if job is not None and outcome is not None:
                yield job, outcome

    def _stop(self, worker: _Worker) -> None:
        worker.process.kill()
        worker.process.join()
        worker.connection.close()


def _serve(connection: Connection, work: Callable[[Job], Outcome], limits: Limits) -> None:
    """A worker's life: jobs in, outcomes out, until the pipe is closed."""
    # Ctrl-C reaches the whole group of processes; ending workers is the parent's business.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    limits.apply()
    with contextlib.suppress(EOFError, BrokenPipeError):
        while True:
            connection.send(work(connection.recv()))


def _last_words(exit_code: int | None) -> str:
    if exit_code is not None and exit_code < 0:
        name = signal.Signals(-exit_code).name
        return f"the worker was ended by {name}" + (
            " (out of memory?)" if name == "SIGKILL" else ""
        )
    return f"the worker ended with status {exit_code}"


@contextlib.contextmanager
def _environment(changes: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in changes}
    os.environ.update(changes)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
