"""2:4 sparse products beside our own dense ones: built without a GPU, checked and timed with one.

    python benchmarks/cuda_sparse.py build --out build/sparse           # here: nvcc, no GPU
    python benchmarks/cuda_sparse.py run build/sparse --json table.json # there: as cuda_kernels.py
    python benchmarks/cuda_sparse.py --emulate                          # tiny sizes, untimed

Every shape is built twice, with a 2:4 weight and with a dense one, each by the kernel that its cost
model chooses. Results are compared with float64 before anything is timed (int8 for equality); times
are medians of CUDA events, in turn, the second cache flushed, on random data. The bar is 1.3 times
the dense kernel's speed from 1024 rows on, and 1.6 would be outstanding. Exit status 1: a wrong
result.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from gpu.values import ROUNDING, SAMPLED, SHARE, drawn

PLAN = "plan.json"
BAR, MOONSHOT = 1.3, 1.6
TYPES = ("int8", "float16", "float8_e4m3fn")
#: Rows, outputs, inputs.
SHAPES = tuple((rows, 8192, 8192) for rows in (16, 128, 1024, 4096, 8192))
TINY = ((20, 128, 128), (70, 192, 256))
#: Outputs of which a packed weight travels; it repeats.
PERIOD = 64


def build(folder: Path, architecture: str, tiny: bool) -> None:
    """Step one: two libraries for each product, packed weights, and a plan."""
    from fewbits.errors import FewbitsError
    from fewbits.schedules.cuda.architecture import ARCHITECTURES
    from fewbits.schedules.cuda.dispatch import dispatch
    from fewbits.schedules.cuda.epilogue import scaled
    from fewbits.schedules.cuda.problem import Linear
    from fewbits.schedules.cuda.sparse import Sparse24
    from fewbits.schedules.cuda.weight_format import Dense
    from gpu.build import export

    folder.mkdir(parents=True, exist_ok=True)
    entries: list[dict[str, Any]] = []
    for dtype in TYPES:
        for rows, outputs, inputs in TINY if tiny else SHAPES:
            entry: dict[str, Any] = {"dtype": dtype, "shape": [rows, outputs, inputs]}
            accumulator = "int32" if dtype == "int8" else "float32"
            epilogue = scaled("float16", accumulator=accumulator)
            layout = Sparse24(dtype)
            for kind, form in (("sparse", layout), ("dense", Dense(dtype))):
                problem = Linear(inputs, outputs, dtype, form, epilogue)
                name = f"{kind}{len(entries)}"
                try:
                    found = dispatch(problem, ARCHITECTURES[architecture], name, rows=rows)
                except FewbitsError as error:
                    entry["missing"] = str(error)
                    continue
                (kernel,) = found.kernels
                export(kernel, folder / f"{name}.so")
                entry[kind] = [f"{name}.so", kernel.name, found.labels[0]]
            weight = _pruned(dtype, inputs)
            entry["weight"] = f"{dtype}-{inputs}.npz"
            (pieces,) = layout.pack(weight)
            bits = weight.view(f"uint{8 * weight.itemsize}")
            np.savez_compressed(folder / entry["weight"], pieces=pieces, bits=bits)
            entries.append(entry)
            print(f"{dtype} {rows} x {outputs} x {inputs}: {entry.get('sparse', ['', '', '-'])[2]}")
    (folder / PLAN).write_text(json.dumps(entries, indent=1) + "\n", encoding="utf-8")


def _pruned(dtype: str, inputs: int) -> np.ndarray:
    generator = np.random.default_rng(inputs)
    weight = drawn(generator, (PERIOD, inputs), dtype)
    order = np.argsort(generator.random((PERIOD, inputs // 4, 4)), axis=2)
    weight[(order >= 2).reshape(PERIOD, inputs)] = 0
    return weight


def run(folder: Path, emulated: bool, rounds: int) -> tuple[list[dict[str, Any]], bool]:
    """Step two: rows of the table, and whether all results are right."""
    import tvm
    from gpu.run import load

    device = tvm.cuda(0)
    if not device.exist:
        raise SystemExit("no GPU: --emulate checks the kernels on an emulated one")
    table: list[dict[str, Any]] = []
    for entry in json.loads((folder / PLAN).read_text("utf-8")):
        row: dict[str, Any] = {k: entry[k] for k in ("dtype", "shape", "missing") if k in entry}
        contenders: dict[str, Callable[[], Any]] = {}
        x, arrays, operands, want = _operands(entry, folder)
        for kind in ("sparse", "dense"):
            if kind not in entry:
                continue
            library, function, row[kind] = entry[kind]
            launch = load(folder / library)[function]
            y = np.full((x.shape[0], entry["shape"][1]), np.nan, np.float16)
            given = [tvm.runtime.tensor(a, device) for a in (x, arrays[kind], *operands, y)]
            launch(*given)
            device.sync()
            wrong = _wrong(entry["dtype"], given[-1].numpy(), want)
            if wrong is not None:
                row[f"{kind} wrong"] = wrong
            contenders[kind] = lambda launch=launch, given=given: launch(*given)
        if not emulated and len(contenders) == 2:
            from gpu.clock import milliseconds

            row["milliseconds"] = milliseconds(contenders, rounds)
            row["speed"] = row["milliseconds"]["dense"] / row["milliseconds"]["sparse"]
        table.append(row)
        print(_line(row))
    return table, not any(key.endswith("wrong") for row in table for key in row)


def _operands(entry: dict[str, Any], folder: Path) -> tuple[Any, dict[str, Any], list[Any], Any]:
    """x, the weight's arrays, scales, and what sampled rows should be: values and bounds."""
    generator = np.random.default_rng(1)
    rows, outputs, inputs = entry["shape"]
    x = drawn(generator, (rows, inputs), entry["dtype"])
    stored, times = np.load(folder / entry["weight"]), outputs // PERIOD
    weight = stored["bits"].view(x.dtype)
    arrays = {
        "sparse": np.tile(stored["pieces"], (times, 1, 1)),
        "dense": np.tile(weight.view(stored["bits"].dtype), (times, 1)).view(x.dtype),
    }
    row, column = (
        (generator.uniform(0.5, 1.5, size) / inputs).astype(np.float32) for size in (rows, outputs)
    )
    sampled = x[:SAMPLED].astype(np.float64)
    scales = row[:SAMPLED, None] * column
    sums = np.tile(sampled @ weight.astype(np.float64).T, (1, times))
    sizes = np.tile(np.abs(sampled) @ np.abs(weight.astype(np.float64)).T, (1, times))
    exact = (sums.astype(np.float32) * row[:SAMPLED, None] * column).astype(np.float16)
    return x, arrays, [row, column], (exact, sums * scales, sizes * scales)


def _wrong(dtype: str, result: np.ndarray, want: tuple[np.ndarray, ...]) -> str | None:
    exact, values, sizes = want
    got = result[:SAMPLED]
    if dtype == "int8":
        differ = int((got != exact).sum())
        return f"{differ} of {got.size} sampled results differ" if differ else None
    smallest = float(np.finfo(np.float16).smallest_subnormal)
    bound = SHARE[dtype] * sizes + ROUNDING * np.abs(values) + smallest
    excess = float((np.abs(got.astype(np.float64) - values) / bound).max())
    return None if excess <= 1 else f"{excess:.3g} times the bound from float64"


def _line(row: dict[str, Any]) -> str:
    right = "wrong" if any(key.endswith("wrong") for key in row) else "right"
    speed = row.get("speed")
    reached = "" if speed is None else f", {speed:.2f} x dense (bar {BAR}, moonshot {MOONSHOT})"
    title = f"{row['dtype']} {' x '.join(map(str, row['shape']))}"
    return f"{title}: {row.get('missing') or right}{reached}"


def main() -> None:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--emulate", action="store_true", help="tiny sizes in the emulated GPU")
    parser.add_argument("--arch", default="sm_90a", choices=("sm_80", "sm_89", "sm_90a"))
    steps = parser.add_subparsers(dest="step")
    first = steps.add_parser("build", help="compile; no GPU needed")
    first.add_argument("--out", type=Path, required=True)
    first.add_argument("--arch", default="sm_90a", choices=("sm_80", "sm_89", "sm_90a"))
    second = steps.add_parser("run", help="check and time; a GPU, torch and TVM's runtime needed")
    second.add_argument("folder", type=Path)
    second.add_argument("--rounds", type=int, default=30, help="timed calls of each contender")
    second.add_argument("--json", type=Path, help="write the table")
    options = parser.parse_args()
    if options.step == "build":
        build(options.out, options.arch, tiny=False)
        return
    if options.step == "run":
        import torch  # before TVM, which takes CUDA's run-time library from it

        if not torch.cuda.is_available():
            raise SystemExit("no GPU: --emulate checks the kernels on an emulated one")
        table, right = run(options.folder, False, options.rounds)
        if options.json is not None:
            options.json.write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")
        raise SystemExit(0 if right else 1)
    if not options.emulate:
        parser.error("say build, run, or --emulate")
    os.environ["FEWBITS_CUDA"] = f"emulator:{options.arch}"
    from fewbits.targets.cuda import driver

    driver.prepare()
    with tempfile.TemporaryDirectory() as name:
        build(Path(name), options.arch, tiny=True)
        _, right = run(Path(name), True, 0)
    raise SystemExit(0 if right else 1)


if __name__ == "__main__":
    main()
