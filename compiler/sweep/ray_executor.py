"""The cells on a Ray cluster; needs the ``ray`` extra.

Every machine of the cluster needs fewbits and sees the files under the same paths.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from ...errors import FewbitsError
from .executors import Job, Limits, Outcome
from .work import failure, run_cell


class RayExecutor:
    """Ray tasks, one for each cell, of which Ray runs as many as its machines have room for.

    Args:
        address: of a running cluster (``auto``, ``host:6379``); ``local`` starts one here.
        limits: threads become CPUs and memory a resource of the task; no limit on time.
        work: what is done with a job; importable on every machine.
    """

    def __init__(
        self,
        address: str = "auto",
        limits: Limits | None = None,
        work: Callable[[Job], Outcome] = run_cell,
    ) -> None:
        self.address, self.limits, self.work = address, limits or Limits(), work
        if self.limits.seconds is not None:
            raise FewbitsError(
                "unknown-option",
                "Ray does not say when a task has begun, so cells have no time limit there",
                where="--timeout",
                hint="leave it away with --ray",
            )

    def run(self, jobs: Sequence[Job]) -> Iterator[tuple[Job, Outcome]]:
        """See `executors.Executor`."""
        ray = _ray()
        started = not ray.is_initialized()
        if started:
            _connect(ray, self.address)
        task = ray.remote(self.work).options(
            num_cpus=self.limits.threads,
            memory=self.limits.memory,
            max_retries=0,
            runtime_env={"env_vars": self.limits.environment()},
        )
        running: dict[Any, Job] = {task.remote(dict(job)): job for job in jobs}
        try:
            while running:
                done, _ = ray.wait(list(running), num_returns=1)
                for reference in done:
                    job = running.pop(reference)
                    try:
                        outcome = ray.get(reference)
                    except ray.exceptions.RayError as error:
                        words = str(error).strip().splitlines() or [type(error).__name__]
                        outcome = failure("worker-died", words[0][:300])
                    yield job, outcome
        finally:
            for reference in running:
                ray.cancel(reference, force=True)
            if started:
                ray.shutdown()


def _ray() -> Any:
    try:
        import ray
    except ImportError as error:
        raise FewbitsError(
            "missing-package",
            "Ray is not installed",
            where="--ray",
            hint="pip install 'fewbits[ray]'",
        ) from error
    return ray


def _connect(ray: Any, address: str) -> None:
    try:
        ray.init(
            address=address, include_dashboard=False, log_to_driver=False, logging_level="error"
        )
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise FewbitsError(
            "no-cluster",
            f"no Ray cluster at {address!r}: {str(error)[:200]}",
            where="--ray",
            hint="start one with `ray start --head`, or take `local`",
        ) from error
