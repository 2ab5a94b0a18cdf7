"""Where variants of a kernel are built and run: MetaSchedule's builders and runners.

Both work in processes of their own, here or on the machines of a TVM tracker, so a variant that
crashes or never ends costs a failure and nothing else.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tvm
from tvm import target as tvm_target
from tvm.s_tir import meta_schedule as ms

from . import worker
from .choices import Variant
from .space import bound

#: Sums in another order are that far apart at most.
TOLERANCE = 1e-4
_BUILD_SECONDS = 120.0
_RUN_SECONDS = 60.0


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What became of a run: seconds, or the reason why there are none."""

    seconds: float | None
    problem: str | None = None


class Bench:
    """Builds and runs.

    Args:
        target: what is compiled for.
        folder: for files, on this machine.
        builder, runner: of MetaSchedule.
        threads: to compute with; 0: as the remote machine likes.
        width: runs that go on at the same time.
    """

    def __init__(
        self,
        target: tvm_target.Target,
        folder: Path,
        builder: Any,
        runner: Any,
        threads: int,
        width: int = 1,
    ) -> None:
        self.target, self.folder = target, folder
        self.builder, self.runner = builder, runner
        self.threads, self.width = threads, width
        self._jobs = 0

    def build(self, variants: Sequence[Variant]) -> list[tuple[str | None, str | None]]:
        """The artifact of each variant, or what went wrong."""
        inputs = []
        for variant in variants:
            function = variant.function.with_attr("global_symbol", worker.ENTRY)
            module = tvm.IRModule({worker.ENTRY: function})
            inputs.append(ms.builder.BuilderInput(module, self.target))
        return [
            (r.artifact_path and str(r.artifact_path), r.error_msg and last_line(r.error_msg))
            for r in self.builder.build(inputs)
        ]

    def job(
        self, variant: Variant, binding: Mapping[str, int], *, expected: str, leads: bool
    ) -> int:
        """Write down how a variant is run; the number of the job.

        Args:
            variant: its arguments that are no constants get the same values in every job.
            binding: sizes of symbolic dimensions.
            expected: name of the results that all such jobs have to give.
            leads: whether this job's results are those.
        """
        self._jobs += 1
        arrays = self.folder / f"arguments{self._jobs}.npz"
        values = arguments(variant, binding)
        np.savez(arrays, *values)
        job = worker.Job(
            str(arrays), variant.results, str(self.folder / f"{expected}.npz"), leads,
            TOLERANCE, self.threads,
        )  # fmt: skip
        worker.job_file(str(self.folder), self._jobs).write_text(
            json.dumps(dataclasses.asdict(job)), "utf-8"
        )
        return self._jobs

    def run(self, runs: Sequence[tuple[str, int]]) -> list[Outcome]:
        """Run artifacts with jobs, as many at a time as there are machines."""
        outcomes: list[Outcome] = []
        for start in range(0, len(runs), self.width):
            inputs = [
                ms.runner.RunnerInput(artifact, "cpu", [ms.arg_info.TensorInfo("int64", [job])])
                for artifact, job in runs[start : start + self.width]
            ]
            for future in self.runner.run(inputs):
                result = future.result()
                if result.run_secs is None:
                    outcomes.append(Outcome(None, last_line(str(result.error_msg))))
                else:
                    outcomes.append(Outcome(min(float(s) for s in result.run_secs)))
        return outcomes


def last_line(text: str) -> str:
    """What a traceback says in the end."""
    lines = [line.strip() for line in text.strip().splitlines() if line.strip()]
    return lines[-1][:300] if lines else "no reason given"


def arguments(variant: Variant, binding: Mapping[str, int]) -> list[np.ndarray]:
    """Constants as they are, values for what is computed at run time, zeros for results."""
    random = np.random.default_rng(0)
    arrays: list[np.ndarray] = []
    first_result = len(variant.arguments) - variant.results
    for number, argument in enumerate(variant.arguments):
        if isinstance(argument, np.ndarray):
            arrays.append(argument)
            continue
        sizes = bound(dict(enumerate(argument.shape.values)), binding)  # type: ignore[arg-type]
        shape, dtype = tuple(sizes.values()), np.dtype(str(argument.dtype))
        if number >= first_result:
            arrays.append(np.zeros(shape, dtype))
        elif dtype.kind == "f":
            arrays.append(random.uniform(-1, 1, shape).astype(dtype))
        elif dtype == np.int32 and variant.words:
            arrays.append(random.integers(-(1 << 31), 1 << 31, shape).astype(dtype))
        else:  # maybe an index
            arrays.append(random.integers(0, 2, shape).astype(dtype))
    return arrays


def local_bench(
    target: tvm_target.Target,
    folder: Path,
    link: Callable[..., None],
    threads: int,
    config: Any,
) -> Bench:
    """A bench on this machine."""
    runner = ms.runner.LocalRunner(
        timeout_sec=_RUN_SECONDS,
        evaluator_config=config,
        f_alloc_argument=functools.partial(worker.allocate, str(folder)),
        f_run_evaluator=worker.evaluate,
    )
    return Bench(target, folder, _builder(folder, link), runner, threads)


def remote_bench(
    target: tvm_target.Target,
    folder: Path,
    link: Callable[..., None],
    tracker: tuple[str, int, str],
    config: Any,
    machines: int,
) -> Bench:
    """A bench on the machines that a tracker (host, port, key) knows."""
    host, port, key = tracker
    runner = ms.runner.RPCRunner(
        ms.runner.RPCConfig(host, port, key, session_timeout_sec=int(_RUN_SECONDS)),
        evaluator_config=config,
        f_alloc_argument=functools.partial(worker.allocate_remote, str(folder)),
        f_run_evaluator=worker.evaluate_remote,
        max_workers=machines,
    )
    return Bench(target, folder, _builder(folder, link), runner, 0, machines)


def evaluator_config(repeat: int = 40, milliseconds: int = 1) -> Any:
    """How often a variant runs at a time: the least of `repeat` times is what counts.

    Many short times rather than a few long ones: on a machine with other work to do some of them
    are not interrupted.
    """
    return ms.runner.EvaluatorConfig(number=1, repeat=repeat, min_repeat_ms=milliseconds)


def _builder(folder: Path, link: Callable[..., None]) -> Any:
    return ms.builder.LocalBuilder(
        max_workers=os.cpu_count() or 1,
        timeout_sec=_BUILD_SECONDS,
        f_build=worker.build,
        f_export=functools.partial(worker.export, str(folder), link),
    )


def name_of(workload: str, binding: Mapping[str, int]) -> str:
    """A file's name for a workload's results."""
    return f"{workload}-{zlib.crc32(json.dumps(dict(binding), sort_keys=True).encode()):08x}"
