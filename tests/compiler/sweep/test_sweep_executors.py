"""Workers: limits, deaths, time limits, Ctrl-C. The work is `eval`: jobs are Python expressions."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from typing import Any

import pytest
from fewbits.compiler.sweep.executors import Limits, LocalExecutor

WORK: Any = eval


def executor(workers: int, limits: Limits | None = None) -> Callable[[list[str]], dict[str, Any]]:
    def run(jobs: list[str]) -> dict[str, Any]:
        pairs: Any = LocalExecutor(workers, limits, WORK).run(jobs)  # type: ignore[arg-type]
        return dict(pairs)

    return run


def test_every_job_ends_and_workers_are_used_again() -> None:
    jobs = [f"(__import__('os').getpid(), {n})" for n in range(6)]
    found = executor(2)(jobs)
    assert [found[job][1] for job in jobs] == list(range(6))
    assert 1 <= len({pid for pid, _ in found.values()}) <= 2
    assert not multiprocessing.active_children()


def test_nothing_to_do_starts_nobody() -> None:
    assert executor(4)([]) == {}


def test_a_death_takes_one_job_only() -> None:
    jobs = [
        "1",
        "__import__('os')._exit(3)",
        "2",
        "__import__('os').kill(__import__('os').getpid(), 9)",
        "3",
    ]
    found = executor(1)(jobs)
    assert [found[job] for job in (jobs[0], jobs[2], jobs[4])] == [1, 2, 3]
    errors = [found[job]["error"] for job in (jobs[1], jobs[3])]
    assert [error["code"] for error in errors] == ["worker-died"] * 2
    assert "status 3" in errors[0]["message"] and "SIGKILL" in errors[1]["message"]
    assert found[jobs[1]]["status"] == "failed"


def test_time_is_limited() -> None:
    jobs = ["__import__('time').sleep(600)", "'quick'"]
    found = executor(1, Limits(seconds=20.0))(["'quick'"])
    assert found == {"'quick'": "quick"}
    found = executor(2, Limits(seconds=5.0))(jobs[:1])
    assert found[jobs[0]]["error"]["code"] == "timeout"
    assert not multiprocessing.active_children()


def test_memory_and_threads_are_limited() -> None:
    big = "bytearray(1 << 30)"
    threads = "__import__('os').environ['OMP_NUM_THREADS']"
    found = executor(1, Limits(threads=3, memory=400 << 20))([threads, big])
    assert found[threads] == "3"
    assert found[big]["error"]["code"] == "worker-died"


def test_closing_ends_what_runs() -> None:
    runs: Any = LocalExecutor(2, None, WORK).run(["1", "__import__('time').sleep(600)"])  # type: ignore[list-item]
    assert next(runs) == ("1", 1)
    runs.close()
    assert not multiprocessing.active_children()


def test_ray_runs_cells_on_two_workers() -> None:
    pytest.importorskip("ray", reason="the extra `ray` is not installed")
    from fewbits.compiler.sweep.ray_executor import RayExecutor
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    try:
        cluster.add_node(num_cpus=1)
        node = "__import__('ray').get_runtime_context().get_node_id()"
        # Each waits for the other, so both nodes have to work at the same time.
        jobs = [f"(__import__('time').sleep(8), {node}, {n})[1:]" for n in range(2)]
        dead = "__import__('os')._exit(1)"
        ray: Any = RayExecutor(cluster.address, Limits(threads=1), lambda job: eval(job["code"]))
        found = {job["code"]: outcome for job, outcome in _on(ray, [*jobs, dead])}
        assert len({found[job][0] for job in jobs}) == 2
        assert [found[job][1] for job in jobs] == [0, 1]
        assert found[dead]["error"]["code"] == "worker-died"
    finally:
        cluster.shutdown()


def _on(executor: Any, codes: list[str]) -> Any:
    return executor.run([{"code": code} for code in codes])
