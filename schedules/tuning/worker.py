"""What happens in other processes: building, and running beside the reference.

MetaSchedule's workers know of a run its artifact and the types of its arguments. The first of these
is no argument but the number of a job, whose files are in a folder on the machine that tunes: the
arrays, and the results that any sizes have to give.
"""

from __future__ import annotations

import dataclasses
import json
import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tvm

#: The name of a kernel's function in its artifact.
ENTRY = "main"


@dataclasses.dataclass(frozen=True)
class Job:
    """One way to run a kernel.

    Attributes:
        arguments: file of the arrays in order.
        results: how many of the last are written.
        expected: file of the results; made by this job where `leads`.
        leads: whether this job's results are those of all.
        tolerance: how far results may be off, as a share of the largest of each.
        threads: to compute with.
    """

    arguments: str
    results: int
    expected: str
    leads: bool
    tolerance: float
    threads: int


def job_file(folder: str, number: int) -> Path:
    """Where a job is written."""
    return Path(folder) / f"job{number}.json"


def build(module: Any, target: Any, _: Any) -> Any:
    """Machine code."""
    from tvm.driver import build as tvm_build

    return tvm_build(module, target=target)


def export(folder: str, link: Callable[..., None], module: Any) -> str:
    """Link machine code to a library with a name of its own; `link` takes it and `path`."""
    handle, name = tempfile.mkstemp(suffix=".so", dir=folder)
    os.close(handle)
    link(module, path=Path(name))
    return name


def allocate(folder: str, device: Any, args_info: Sequence[Any], _: int) -> list[list[Any]]:
    """A job's arguments on the device, once."""
    number = int(args_info[0][2][0])
    job = Job(**json.loads(job_file(folder, number).read_text("utf-8")))
    with np.load(job.arguments) as arrays:
        tensors = [tvm.runtime.tensor(arrays[name], device) for name in arrays.files]
    return [[job, *tensors]]


def allocate_remote(folder: str, session: Any, *rest: Any) -> list[list[Any]]:
    """The same on a remote machine."""
    del session
    return allocate(folder, *rest)


def evaluate(
    module: Any, device: Any, config: Any, repeated: Sequence[Sequence[Any]]
) -> list[float]:
    """Check a kernel's results and time it.

    Raises:
        ValueError: for results that are not those expected.
    """
    ((job, *tensors),) = repeated
    use_threads(tvm.get_global_func, job.threads)
    return _timed(module, device, config, job, tensors)


def evaluate_remote(
    session: Any, module: Any, device: Any, config: Any, repeated: Sequence[Sequence[Any]]
) -> list[float]:
    """The same on a remote machine."""
    ((job, *tensors),) = repeated
    if job.threads:
        use_threads(session.get_function, job.threads)
    return _timed(module, device, config, job, tensors)


def use_threads(get_function: Callable[[str], Any], count: int) -> None:
    """Let kernels use so many workers, tied to no core."""
    os.environ.setdefault("TVM_NUM_THREADS", str(count))
    os.environ.setdefault("TVM_BIND_THREADS", "0")
    get_function("runtime.config_threadpool")(1, count)


def _timed(module: Any, device: Any, config: Any, job: Job, tensors: list[Any]) -> list[float]:
    module[ENTRY](*tensors)
    compare([tensor.numpy() for tensor in tensors[len(tensors) - job.results :]], job)
    timer = module.time_evaluator(
        ENTRY, device, number=config.number, repeat=config.repeat,
        min_repeat_ms=config.min_repeat_ms,
    )  # fmt: skip
    return [float(seconds) for seconds in timer(*tensors).results]


def compare(results: Sequence[np.ndarray], job: Job) -> None:
    """Compare results with those expected, or make them those expected.

    Raises:
        ValueError: where they differ.
    """
    if job.leads:
        np.savez(job.expected, *results)
        return
    with np.load(job.expected) as arrays:
        expected = [arrays[name] for name in arrays.files]
    for ours, theirs in zip(results, expected, strict=True):
        scale = max(float(np.abs(theirs[np.isfinite(theirs)]).max(initial=0)), 1e-30)
        same = (ours == theirs) | ((ours != ours) & (theirs != theirs))
        apart = np.abs(ours[~same].astype(np.float64) - theirs[~same])
        distance = float(apart.max(initial=0)) / scale
        if not distance <= job.tolerance:
            raise ValueError(f"results differ by {distance:.1e} of the largest")
