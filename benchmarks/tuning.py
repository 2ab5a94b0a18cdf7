"""Tuned kernels against the sizes of their rules: each workload, and the whole model.

    python benchmarks/tuning.py --trials 16
    python benchmarks/tuning.py --recipes float --threads 1 --database records

Workloads are measured by ``fewbits tune`` itself. The whole model is compiled twice, without and
with the records, and both libraries run in turns; every figure is the minimum of all repetitions,
and the ratio is tuned over not tuned. The model is looked for in ``../shared``.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

SHARED = Path(__file__).resolve().parent.parent.parent / "shared"


def main() -> None:
    """Print both tables for each recipe."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--recipes", nargs="+", default=["float", "w8a8-smooth", "w4-g128"])
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--trials", type=int, default=16)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repetitions", type=int, default=200)
    parser.add_argument("--database", type=Path, help="keep records here, and use them again")
    given = parser.parse_args()
    os.environ["TVM_NUM_THREADS"] = str(given.threads)
    console = Console(width=140)
    with tempfile.TemporaryDirectory() as folder:
        for recipe in given.recipes:
            _one(console, recipe, given, Path(folder))


def _one(console: Console, recipe: str, given: Any, folder: Path) -> None:
    sys.path.insert(0, str(SHARED))
    import realdata
    from fewbits.compiler import driver
    from fewbits.compiler.api import load
    from fewbits.compiler.options import Options
    from fewbits.compiler.tuning import Plan, tune_model

    task = realdata.load("minilm")
    calibration = dict(task.calibration) if recipe != "float" else None
    database = given.database or folder / "records"
    options = Options(target="cpu", recipe=recipe, samples=16)
    plan = Plan({"N": [1], "T": [given.length]}, given.trials, False, database)
    result = tune_model(task.model, options, plan, calibration)
    table = Table("workload", "calls", "rule us", "best us", "ratio", "sizes", box=None)
    table.title = f"{recipe}, {given.length} tokens, {given.threads} threads"
    for row in result.rows:
        if row.record is not None:
            (rule,), (best,) = row.record.rule_us, row.record.best_us
            sizes = "x".join(map(str, row.record.sizes))
            figures = (f"{rule:.1f}", f"{best:.1f}", f"{best / rule:.3f}")
            table.add_row(row.title, str(row.calls), *figures, sizes)
    console.print(table)
    models = []
    for name, tuning in (("plain", None), ("tuned", database)):
        out = folder / f"{recipe}-{name}"
        chosen = Options(target="cpu", recipe=recipe, samples=16, tuning=tuning)
        driver.compile(task.model, out, chosen, calibration)
        models.append(load(out, threads=given.threads))
    ids = np.random.default_rng(0).integers(5, 5000, (1, given.length))
    inputs = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
    best = [float("inf")] * 2
    for _ in range(given.repetitions):
        for number, model in enumerate(models):
            start = time.perf_counter()
            model(**inputs)
            best[number] = min(best[number], time.perf_counter() - start)
    plain, tuned = (1e3 * seconds for seconds in best)
    console.print(f"whole model: {plain:.3f} ms -> {tuned:.3f} ms, ratio {tuned / plain:.3f}\n")


if __name__ == "__main__":
    main()
