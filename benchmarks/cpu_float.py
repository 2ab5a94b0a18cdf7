"""Float models on this CPU: the compiled library's loops against onnxruntime, same threads.

    python benchmarks/cpu_float.py                      # all models, two threads, a minute or two
    python benchmarks/cpu_float.py --models minilm --threads 1 --repetitions 100
    python benchmarks/cpu_float.py --functions          # where the time goes, by function

Every figure is the minimum of interleaved repetitions. The ratio is ours over onnxruntime's. Models
are looked for in ``../shared`` and are not part of the repository.
"""

from __future__ import annotations

import argparse
import collections
import dataclasses
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

SHARED = Path(__file__).resolve().parent.parent.parent / "shared"
#: Model, sizes of its symbolic dimensions, and whether it is compiled for all sizes at once.
CASES: tuple[tuple[str, Mapping[str, int], bool], ...] = (
    ("minilm", {"N": 1, "T": 128}, True),
    ("minilm", {"N": 8, "T": 128}, True),
    ("minilm", {"N": 1, "T": 16}, True),
    ("minilm", {"N": 1, "T": 128}, False),
    ("resnet8", {"N": 1}, False),
    ("kws", {"N": 1}, False),
    ("vww", {"N": 1}, False),
)


@dataclasses.dataclass(frozen=True)
class Contest:
    """Two ways to run one model, and their inputs.

    Attributes:
        ours: the virtual machine.
        theirs: the onnxruntime session.
        inputs: by name.
    """

    ours: Any
    theirs: Any
    inputs: Mapping[str, NDArray[Any]]

    def difference(self) -> float:
        """The largest difference of the first output."""
        result = self.ours["main"](*self.arguments())
        first = result if hasattr(result, "numpy") else result[0]
        return float(np.abs(first.numpy() - self.theirs.run(None, dict(self.inputs))[0]).max())

    def arguments(self) -> list[Any]:
        """The inputs as TVM's tensors."""
        import tvm

        return [tvm.runtime.tensor(array) for array in self.inputs.values()]

    def times(self, repetitions: int) -> tuple[float, float]:
        """The least seconds of ours and of theirs."""
        main, arguments, inputs = self.ours["main"], self.arguments(), dict(self.inputs)
        best = [float("inf")] * 2
        for _ in range(repetitions):
            for number, run in enumerate(
                (lambda: main(*arguments), lambda: self.theirs.run(None, inputs))
            ):
                start = time.perf_counter()
                run()
                best[number] = min(best[number], time.perf_counter() - start)
        return best[0], best[1]

    def functions(self, repetitions: int) -> list[tuple[str, int, float]]:
        """Each of our functions: name, calls, least seconds of all its calls together."""
        begun = 0.0
        seen: list[tuple[str, float]] = []

        def instrument(function: Any, name: str, before: bool, *rest: Any) -> None:
            nonlocal begun
            if before:
                begun = time.perf_counter()
            else:
                seen.append((name, time.perf_counter() - begun))

        self.ours.set_instrument(instrument)
        runs: list[list[tuple[str, float]]] = []
        for _ in range(repetitions):
            seen.clear()
            self.ours["main"](*self.arguments())
            runs.append(list(seen))
        self.ours.set_instrument(None)
        total: collections.Counter[str] = collections.Counter()
        calls: collections.Counter[str] = collections.Counter()
        for same in zip(*runs, strict=True):
            name = same[0][0]
            total[name] += min(seconds for _, seconds in same)  # type: ignore[assignment]
            calls[name] += 1
        return [(name, calls[name], seconds) for name, seconds in total.most_common()]


def compiled(model: Path, bind: Mapping[str, int], dynamic: bool) -> Any:
    """The model's virtual machine, through the CPU target's pipeline."""
    import tvm
    from fewbits.compiler.importer import import_onnx
    from fewbits.targets.cpu.pipeline import choose_kernels, lower_to_tir, make_executable
    from tvm import relax

    imported = import_onnx(model, dynamic=True) if dynamic else import_onnx(model, bind=bind)
    host = tvm.get_global_func("target.llvm_get_system_cpu")()
    target = tvm.target.Target({"kind": "llvm", "mcpu": host})
    module = lower_to_tir(choose_kernels(imported.module, target), target)
    return relax.VirtualMachine(make_executable(module, target), tvm.cpu())


def contest(name: str, bind: Mapping[str, int], machine: Any, threads: int) -> Contest:
    """Both contestants with the first samples of the model's evaluation set (tokens: random)."""
    import onnxruntime
    import realdata

    task = realdata.load(name)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(
        str(task.model), options, providers=["CPUExecutionProvider"]
    )
    rows = bind["N"]
    if "T" in bind:
        shape = (rows, bind["T"])
        ids = np.random.default_rng(0).integers(5, 5000, shape)
        inputs = {"input_ids": ids, "attention_mask": np.ones(shape, np.int64)}
    else:
        inputs = {key: np.ascontiguousarray(value[:rows]) for key, value in task.inputs.items()}
    return Contest(machine, session, inputs)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", nargs="+", default=sorted({name for name, _, _ in CASES}))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repetitions", type=int, default=100)
    parser.add_argument("--functions", action="store_true", help="also by function")
    options = parser.parse_args()
    if not SHARED.is_dir():
        raise SystemExit(f"no models: {SHARED} does not exist")
    os.environ["TVM_NUM_THREADS"] = str(options.threads)
    sys.path.insert(0, str(SHARED))
    import realdata

    console = Console()
    table = Table("model", "sizes", "compiled for", "ours ms", "onnxruntime ms", "ratio", "error")
    machines: dict[str, Any] = {}
    for name, bind, dynamic in CASES:
        if name not in options.models:
            continue
        key = f"{name} {'all' if dynamic else sorted(bind.items())}"
        if key not in machines:
            machines[key] = compiled(realdata.load(name).model, bind, dynamic)
        both = contest(name, bind, machines[key], options.threads)
        error = both.difference()
        ours, theirs = both.times(options.repetitions)
        sizes = " ".join(f"{dimension}={size}" for dimension, size in bind.items())
        table.add_row(
            name,
            sizes,
            "all sizes" if dynamic else "these",
            f"{ours * 1e3:.3f}",
            f"{theirs * 1e3:.3f}",
            f"{ours / theirs:.2f}",
            f"{error:.1e}",
        )
        if options.functions:
            console.print(f"{name} {sizes}")
            for function, calls, seconds in both.functions(max(options.repetitions // 10, 3)):
                console.print(f"  {seconds * 1e6:10.1f} us {calls:4d}  {function}")
    console.print(table)


if __name__ == "__main__":
    main()
