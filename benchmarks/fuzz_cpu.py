"""Random small graphs through the whole compiler to a library for this CPU.

Every graph must either compile, agree with the oracle and in float with onnxruntime, or be refused
with a `FewbitsError`. Any other exception, crash or difference is a finding. Nothing is linked: the
machine code runs from memory, in a child process.

    python -m benchmarks.fuzz_cpu --count 200
    python -m benchmarks.fuzz_cpu --count 100 --batch N      (the batch is symbolic; run with 3)
    python -m benchmarks.fuzz_cpu --seed 17 --recipe w8a8    (one graph, in detail)
"""

from __future__ import annotations

import argparse
import collections
import dataclasses
import time
import traceback
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import onnx
from fewbits.compiler import driver
from fewbits.compiler.description import ports
from fewbits.compiler.driver import Compilation
from fewbits.compiler.execution import encode_batch
from fewbits.compiler.options import Options
from fewbits.compiler.symbols import batch_of
from fewbits.compiler.verify import Oracle, distance
from fewbits.errors import FewbitsError
from fewbits.targets.cpu.pipeline import make_executable
from fewbits.targets.cpu.product import CpuProduct

from . import isolated
from .fuzz_graphs import FLOAT_TOLERANCE, Finding, graphs, onnxruntime_outputs

RECIPES = ("float", "int8", "w4-g128", "w8a8")
SAMPLES = 8
#: Samples that are run.
RUN = 3


@dataclasses.dataclass(frozen=True)
class Job:
    """A graph and a recipe; `batch` is the name of a symbolic batch, if it is one."""

    seed: int
    recipe: str
    batch: str | None = None

    @property
    def label(self) -> str:
        """For the log."""
        return self.recipe + (f" batch {self.batch}" if self.batch else "")


def run(job: Job) -> Finding:
    """What comes of one graph."""
    model = graphs.random_model(job.seed)
    samples = graphs.random_samples(model, SAMPLES, job.seed)
    if job.batch:
        open_batch(model, job.batch)
    options = Options(target="cpu", recipe=job.recipe, to="lower")
    finding = partial(Finding, job.seed, job.label)
    try:
        data = None if job.recipe in ("float", "w4-g128", "w8a8") else samples
        state = driver.compile(model.SerializeToString(), None, options, data)
        assert isinstance(state, Compilation) and isinstance(state.product, CpuProduct)
        few = {name: array[:RUN] for name, array in samples.items()}
        kind, detail = against_oracle(state, few)
        if kind == "ok" and job.recipe == "float":
            kind, detail = _far(model, state, few)
        return finding(kind, detail)
    except FewbitsError as error:
        return finding("refused", f"{error.code}: {error.message}")
    except Exception:
        return finding("exception", traceback.format_exc())


def open_batch(model: onnx.ModelProto, name: str) -> None:
    """The batch of all inputs becomes a symbol; the outputs say nothing about their shapes."""
    for value in (*model.graph.input, *model.graph.output):
        size = value.type.tensor_type.shape.dim[0]
        if size.dim_value == 1 and value in model.graph.input:
            size.dim_param = name
        elif value not in model.graph.input:
            value.type.tensor_type.ClearField("shape")


def function_of(product: CpuProduct) -> Callable[[Sequence[np.ndarray]], list[np.ndarray]]:
    """The library as a function, without linking it."""
    import tvm
    from tvm.runtime.vm import VirtualMachine

    executable = make_executable(product.lowered, product.tvm_target)
    machine = VirtualMachine(executable.jit(), tvm.cpu())

    def call(arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        result = machine["main"](*(tvm.runtime.tensor(np.ascontiguousarray(a)) for a in arrays))
        return [f.numpy() for f in ([result] if hasattr(result, "numpy") else list(result))]

    return call


def against_oracle(state: Compilation, samples: dict[str, np.ndarray]) -> tuple[str, str]:
    """Whether the library computes what the oracle does: ``ok``, or what is wrong."""
    assert isinstance(state.product, CpuProduct)
    call = function_of(state.product)
    inputs, outputs = ports(state)
    codes = encode_batch(samples, inputs)
    whole = batch_of(inputs) is not None
    wanted = Oracle(state.product.module)(codes)
    calls = [codes] if whole else [[a[n] for a in codes] for n in range(len(codes[0]))]
    for number, arrays in enumerate(calls):
        for port, got, want in zip(outputs, call(arrays), wanted, strict=True):
            one = want if whole else want[number]
            if got.shape != one.shape:
                return "wrong shape", f"{port.name!r}: {got.shape}, not {one.shape}"
            found = distance(got, one)
            if not found <= state.product.float_match:
                return "not the oracle's", f"{port.name!r}: {found:.3g} of its length"
    return "ok", ""


def _far(
    model: onnx.ModelProto, state: Compilation, samples: dict[str, np.ndarray]
) -> tuple[str, str]:
    """Whether the oracle computes what onnxruntime does."""
    assert state.product is not None
    inputs, outputs = ports(state)
    found = Oracle(state.product.module)(encode_batch(samples, inputs))
    wanted = onnxruntime_outputs(model, samples)
    for port, got, want in zip(outputs, found, wanted, strict=True):
        error = float(np.abs(got.reshape(want.shape) - want).max())
        bound = FLOAT_TOLERANCE * (1.0 + float(np.abs(want).max()))
        if not error <= bound:
            return "far from float", f"{port.name!r}: error {error:.4g}, bound {bound:.4g}"
    return "ok", ""


def _crashed(job: Job, reason: str) -> Finding:
    """What is said of a compilation whose process ended or hung."""
    return Finding(job.seed, job.label, "crash", reason)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seed", type=int, help="only this graph")
    parser.add_argument("--recipe", action="append", help=f"default: {', '.join(RECIPES)}")
    parser.add_argument("--batch", help="make the batch symbolic, with this name")
    arguments = parser.parse_args()
    seeds = range(arguments.first, arguments.first + arguments.count)
    if arguments.seed is not None:
        seeds = range(arguments.seed, arguments.seed + 1)
        print(onnx.printer.to_text(graphs.random_model(arguments.seed).graph))
    recipes = arguments.recipe or RECIPES
    jobs = [Job(seed, recipe, arguments.batch) for seed in seeds for recipe in recipes]
    started = time.monotonic()
    counts: collections.Counter[str] = collections.Counter()
    for found in isolated.each(run, jobs, _crashed):
        label = found.kind
        if found.kind == "refused":
            label += " " + found.detail.partition(":")[0]
        counts[label] += 1
        if found.kind != "ok" or arguments.seed is not None:
            print(f"seed {found.seed} {found.recipe}: {found.kind}: {found.detail}", flush=True)
    print(f"{sum(counts.values())} compilations in {time.monotonic() - started:.0f} s")
    for label, number in counts.most_common():
        print(f"{number:6} {label}")


if __name__ == "__main__":
    main()
