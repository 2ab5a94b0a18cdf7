"""Random graphs, and random layers in random few-bit forms, through the whole road to a GPU.

Each runs on the emulated GPU, and must agree with the oracle or be refused with a `FewbitsError`.
Any other exception, crash, fault of a kernel or difference is a finding. Several are compiled into
one library.

    python -m benchmarks.fuzz_cuda --count 100                    (layers, on sm_80)
    python -m benchmarks.fuzz_cuda --count 100 --kind graph --recipe w8a8
    python -m benchmarks.fuzz_cuda --architecture sm_90a --float float32
    python -m benchmarks.fuzz_cuda --seed 17                      (one, in detail)
"""

from __future__ import annotations

import argparse
import collections
import dataclasses
import time
import traceback
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from fewbits.compiler import driver
from fewbits.compiler.description import ports
from fewbits.compiler.driver import Compilation
from fewbits.compiler.execution import encode_batch
from fewbits.compiler.options import Options
from fewbits.compiler.recipe import Recipe
from fewbits.compiler.symbols import batch_of
from fewbits.compiler.verify import Oracle, distance
from fewbits.errors import FewbitsError
from fewbits.targets.cuda.product import CudaProduct
from fewbits.targets.vm.layers import layer_rows

from . import fuzz_compressed, isolated
from .cuda_libraries import Function, Part, functions_of
from .fuzz_cpu import RECIPES, RUN, SAMPLES, open_batch
from .fuzz_graphs import Finding, graphs

TARGETS = {"sm_80": "cuda-sm80", "sm_89": "cuda-sm89", "sm_90a": "cuda-sm90a"}
ROWS = (1, 1, 2, 3, 5, 8, 9, 16, 17, 33, 64, 65, 100, 128, 129, 200, 300)
#: Compiled into one library.
TOGETHER = 8
#: Longest that a library may take to compile and run, in seconds.
PATIENCE = 400


@dataclasses.dataclass(frozen=True)
class Job:
    """What is drawn, and what it is compiled for.

    Attributes:
        kind: ``layer`` (of `fuzz_compressed`) or ``graph`` (of `models/random_graphs.py`).
        seed: of the draw.
        architecture: e.g. ``"sm_80"``.
        dtype: what floats are stored in.
        recipe: of a graph; a layer draws its own.
        batch: makes the batch of a graph symbolic, under this name.
    """

    kind: str
    seed: int
    architecture: str
    dtype: str
    recipe: str = ""
    batch: str | None = None

    @property
    def label(self) -> str:
        """For the log."""
        batch = f" batch {self.batch}" if self.batch else ""
        return f"{self.kind} {self.architecture} {self.dtype} {self.recipe}{batch}"


@dataclasses.dataclass(frozen=True, eq=False)
class _Ready:
    """A job that awaits a compiler."""

    job: Job
    text: str
    state: Compilation
    samples: dict[str, np.ndarray]


def run(jobs: Sequence[Job]) -> list[Finding]:
    """What comes of some jobs for one architecture, in one library."""
    results: dict[Job, Finding] = {}
    ready: list[_Ready] = []
    for job in jobs:
        found = _guarded(job, job.label, partial(_lowered, job))
        if isinstance(found, Finding):
            results[job] = found
        else:
            ready.append(found)
    if ready:
        with functions_of([_part(one) for one in ready], jobs[0].architecture) as functions:
            for one, function in zip(ready, functions, strict=True):
                results[one.job] = _guarded(one.job, one.text, partial(_compared, one, function))
    return [results[job] for job in jobs]


def _guarded(job: Job, text: str, work: Any) -> Any:
    try:
        return work()
    except FewbitsError as error:
        kind = "fault" if error.code == "gpu-fault" else "refused"
        return Finding(job.seed, text, kind, f"{error.code}: {error.message}")
    except Exception:
        return Finding(job.seed, text, "exception", traceback.format_exc())


def _lowered(job: Job) -> _Ready:
    if job.kind == "layer":
        made = fuzz_compressed.draw(job.seed, ROWS)
        model, recipe, text = made.model, Recipe(name="fuzz", passes=made.passes), made.text
        samples = with_outliers(made.data, job.seed)
        data: dict[str, np.ndarray] | None = samples
    else:
        model, recipe, text = graphs.random_model(job.seed), job.recipe, ""
        samples = graphs.random_samples(model, SAMPLES, job.seed)
        if job.batch:
            open_batch(model, job.batch)
        data = None if job.recipe in ("float", "w4-g128", "w8a8") else samples
        samples = {name: array[:RUN] for name, array in samples.items()}
    options = Options(
        target=TARGETS[job.architecture], recipe=recipe, to="lower", float_type=job.dtype
    )
    state = driver.compile(model.SerializeToString(), None, options, data)
    assert isinstance(state, Compilation) and isinstance(state.product, CudaProduct)
    rows = layer_rows(state.product.module, state.product.chosen[0].module)
    kernels = ", ".join(str(row["kernel"]) for row in rows)
    return _Ready(job, f"{job.label} {text} -> {kernels}", state, samples)


def with_outliers(data: dict[str, np.ndarray], seed: int) -> dict[str, np.ndarray]:
    """Every third seed has a column that is twenty times as large as the others."""
    if seed % 3:
        return data
    result = {}
    for name, array in data.items():
        if array.dtype.kind == "f":
            array = array.copy()
            array[..., seed % array.shape[-1]] *= 20
        result[name] = array
    return result


def _part(one: _Ready) -> Part:
    assert isinstance(one.state.product, CudaProduct)
    return Part(one.state.product.lowered[0], one.state.product.chosen[0].kernels)


def _compared(one: _Ready, function: Function) -> Finding:
    """Whether the library computes what the oracle does: ``ok``, or what is wrong."""
    finding = partial(Finding, one.job.seed, one.text)
    assert isinstance(one.state.product, CudaProduct)
    inputs, outputs = ports(one.state)
    codes = encode_batch(one.samples, inputs)
    wanted = Oracle(one.state.product.module)(codes)
    whole = batch_of(inputs) is not None
    calls = [codes] if whole else [[a[n] for a in codes] for n in range(len(codes[0]))]
    for number, arrays in enumerate(calls):
        for port, got, want in zip(outputs, function(arrays), wanted, strict=True):
            part = want if whole else want[number]
            if got.shape != part.shape:
                return finding("wrong shape", f"{port.name!r}: {got.shape}, not {part.shape}")
            found = distance(got, part)
            if not found <= one.state.product.float_match:
                return finding("not the oracle's", f"{port.name!r}: {found:.3g} of its length")
    return finding("ok", "")


def campaign(jobs: Sequence[Job]) -> list[Finding]:
    """Findings for jobs of one architecture, libraries of several in child processes."""
    findings: list[Finding] = []
    groups = [jobs[start : start + TOGETHER] for start in range(0, len(jobs), TOGETHER)]

    def crashed(group: Sequence[Job], reason: str) -> list[Finding]:
        return [Finding(job.seed, job.label, "crash", reason) for job in group]

    for group, found in zip(groups, isolated.each(_safely, groups, crashed, PATIENCE), strict=True):
        if len(group) > 1 and any(one.kind in ("crash", "exception") for one in found):
            alone = [[job] for job in group]
            found = [one[0] for one in isolated.each(_safely, alone, crashed, PATIENCE)]
        for one in found:
            if one.kind != "ok":
                text = f"{one.kind}: {one.recipe}: {one.detail}"
                print(f"seed {one.seed}: {text}", flush=True)
        findings += found
    return findings


def _safely(jobs: Sequence[Job]) -> list[Finding]:
    """`run`, with what no single job is to blame for as the finding of each."""
    try:
        return run(jobs)
    except Exception:
        text = traceback.format_exc()
        return [Finding(job.seed, job.label, "exception", text) for job in jobs]


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seed", type=int, help="only this draw")
    parser.add_argument("--kind", choices=["layer", "graph"], default="layer")
    parser.add_argument("--architecture", choices=list(TARGETS), default="sm_80")
    parser.add_argument("--float", dest="dtype", default="float16")
    parser.add_argument("--recipe", action="append", help=f"default: {', '.join(RECIPES)}")
    parser.add_argument("--batch", help="graphs: make the batch symbolic, with this name")
    arguments = parser.parse_args()
    seeds = range(arguments.first, arguments.first + arguments.count)
    if arguments.seed is not None:
        seeds = range(arguments.seed, arguments.seed + 1)
    recipes = (arguments.recipe or RECIPES) if arguments.kind == "graph" else [""]
    jobs = [
        Job(arguments.kind, seed, arguments.architecture, arguments.dtype, recipe, arguments.batch)
        for seed in seeds
        for recipe in recipes
    ]
    started = time.monotonic()
    findings = campaign(jobs)
    if arguments.seed is not None:
        for one in findings:
            print(one)
    counts: collections.Counter[str] = collections.Counter()
    kernels: collections.Counter[str] = collections.Counter()
    for one in findings:
        code = one.detail.partition(":")[0]
        counts[f"refused {code}" if one.kind == "refused" else one.kind] += 1
        kernels.update(k for k in one.recipe.partition(" -> ")[2].split(", ") if k)
    print(f"{len(findings)} compilations in {time.monotonic() - started:.0f} s")
    for label, number in [*counts.most_common(), *kernels.most_common()]:
        print(f"{number:6} {label}")


if __name__ == "__main__":
    main()
