"""A transformer compiled once for all sizes, against onnxruntime: time, one token, size of files.

    python benchmarks/cpu_models.py                       # MiniLM, 1 and 2 threads, two minutes
    python benchmarks/cpu_models.py --tokens 16 --batch 8 --threads 2
    python benchmarks/cpu_models.py --recipes w8a8-smooth --only model

Three tables: whole models against onnxruntime's float and dynamic int8 sessions of as many threads;
a single row times a 4096 x 4096 weight in 4 bits against MatMul and MatMulNBits; and the library's
bytes against the exact bits of its weights. Contenders run in blocks with a pause between them, as
onnxruntime's threads spin for a while after a call, and the smallest time of all blocks counts.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

SHARED = Path(__file__).resolve().parent.parent.parent / "shared"
#: Recipes, with the largest ratio of times that is wanted and to which onnxruntime session.
RECIPES: Mapping[str, tuple[str, float] | None] = {
    "float": ("onnxruntime float", 1.3),
    "w8a8-smooth": ("onnxruntime int8", 1.0),
    "w4-g128": None,
}
#: K and N of the single row's product.
ROW = (4096, 4096)
Run = Callable[[], Any]


def blocks(runs: Mapping[str, Run], rounds: int, calls: int, pause: float) -> dict[str, float]:
    """Least seconds of each contender, in `rounds` blocks of `calls` calls after a pause."""
    best = dict.fromkeys(runs, float("inf"))
    for _ in range(rounds):
        for name, run in runs.items():
            time.sleep(pause)
            run()
            for _ in range(calls):
                begin = time.perf_counter()
                run()
                best[name] = min(best[name], time.perf_counter() - begin)
    return best


def session(model: str, threads: int) -> Any:
    """An onnxruntime session."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def compiled(task: Any, recipes: Sequence[str], folder: Path) -> dict[str, Any]:
    """Artifacts of the model, by recipe."""
    import fewbits

    made = {}
    for recipe in recipes:
        made[recipe] = fewbits.compile(
            task.model, folder / recipe, calibration=task.calibration,
            target="cpu", recipe=recipe, samples=32,
        )  # fmt: skip
    return made


def models(
    task: Any, artifacts: Mapping[str, Any], shape: tuple[int, int], dynamic: str,
    threads: int, options: argparse.Namespace,
) -> Table:  # fmt: skip
    """Whole models."""
    import fewbits

    ids = np.random.default_rng(0).integers(5, 2000, shape)
    inputs = {"input_ids": ids.astype(np.int64), "attention_mask": np.ones(shape, np.int64)}
    theirs = {
        "onnxruntime float": session(str(task.model), threads),
        "onnxruntime int8": session(dynamic, threads),
    }
    runs: dict[str, Run] = {
        name: lambda one=one: one.run(None, inputs) for name, one in theirs.items()
    }
    for recipe, artifact in artifacts.items():
        loaded = fewbits.load(artifact.folder, threads=threads)
        runs[recipe] = lambda loaded=loaded: loaded(**inputs)
    best = blocks(runs, options.rounds, options.calls, options.pause)
    table = Table(title=f"MiniLM, {shape[0]} x {shape[1]} tokens, {threads} threads")
    for column in ("contender", "ms", "of onnxruntime float", "of onnxruntime int8", "wanted"):
        table.add_column(column, justify="left" if column == "contender" else "right")
    for name, seconds in best.items():
        bar = RECIPES.get(name)
        wanted = ""
        if bar is not None:
            against, most = bar
            reached = seconds <= most * best[against]
            wanted = f"<= {most} of {against}: {'yes' if reached else 'no'}"
        table.add_row(
            name, f"{seconds * 1e3:.2f}", f"{seconds / best['onnxruntime float']:.2f}",
            f"{seconds / best['onnxruntime int8']:.2f}", wanted,
        )  # fmt: skip
    return table


def one_row(threads: int, options: argparse.Namespace) -> Table:
    """A single token's product, where reading the weight is all the work."""
    from cpu_kernels import fewbits_run, onnx_run
    from fewbits.targets.cpu.threads import use_threads

    k, n = ROW
    generator = np.random.default_rng(0)
    x = generator.normal(size=(1, k)).astype(np.float32)
    w = generator.normal(size=(n, k)).astype(np.float32)
    use_threads(threads)
    runs: dict[str, Run] = {
        "onnxruntime MatMul": onnx_run("float", x, w, threads),
        "onnxruntime MatMulNBits": onnx_run("w4", x, w, threads),
    }
    for name in ("w4-int4", "w4-nf4"):
        runs[name], _, _ = fewbits_run(name, x, w)
    best = blocks(runs, options.rounds, options.calls * 4, options.pause)
    table = Table(title=f"1 x {k} times {k} x {n}, {threads} threads")
    for column in ("contender", "us", "of MatMul", "of MatMulNBits"):
        table.add_column(column, justify="left" if column == "contender" else "right")
    for name, seconds in best.items():
        table.add_row(
            name, f"{seconds * 1e6:.0f}", f"{seconds / best['onnxruntime MatMul']:.2f}",
            f"{seconds / best['onnxruntime MatMulNBits']:.2f}",
        )  # fmt: skip
    return table


def sizes(task: Any, artifacts: Mapping[str, Any]) -> Table:
    """Files against the exact bits of what is stored."""
    table = Table(title="size")
    for column in ("library", "bytes", "weights, exact", "more than weights", "of the ONNX file"):
        table.add_column(column, justify="left" if column == "library" else "right")
    source = Path(task.model).stat().st_size
    for recipe, artifact in artifacts.items():
        bits = artifact.manifest["weight_bits"]
        exact = (bits["codes"] + bits["metadata"] + 7) // 8
        size = (artifact.folder / artifact.manifest["library"]).stat().st_size
        table.add_row(
            recipe, f"{size:,}", f"{exact:,}", f"{size / exact - 1:.1%}", f"{size / source:.1%}"
        )
    return table


def dynamic_int8(model: Path, folder: Path) -> str:
    """onnxruntime's own int8 model: weights as int8, activations rounded per call."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    path = str(folder / "dynamic.onnx")
    quantize_dynamic(str(model), path, weight_type=QuantType.QInt8)
    return path


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--recipes", nargs="+", default=list(RECIPES))
    parser.add_argument("--only", nargs="+", choices=("model", "row", "size"))
    parser.add_argument("--rounds", type=int, default=8, help="blocks of each contender")
    parser.add_argument("--calls", type=int, default=12, help="calls in a block")
    parser.add_argument("--pause", type=float, default=0.1, help="seconds before a block")
    options = parser.parse_args()
    if not SHARED.is_dir():
        raise SystemExit(f"no models: {SHARED} does not exist")
    # The pool of workers is made once; each call uses as many as it was told.
    os.environ["TVM_NUM_THREADS"] = str(max(options.threads))
    sys.path[:0] = [str(SHARED), str(Path(__file__).resolve().parent)]
    import realdata

    console, wanted = Console(), options.only or ("model", "row", "size")
    task = realdata.load("minilm")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        artifacts: dict[str, Any] = {}
        if "model" in wanted or "size" in wanted:
            artifacts = compiled(task, options.recipes, folder)
        if "model" in wanted:
            dynamic = dynamic_int8(task.model, folder)
            for threads in options.threads:
                shape = (options.batch, options.tokens)
                console.print(models(task, artifacts, shape, dynamic, threads, options))
        if "row" in wanted:
            for threads in options.threads:
                console.print(one_row(threads, options))
        if "size" in wanted:
            console.print(sizes(task, artifacts))


if __name__ == "__main__":
    main()
