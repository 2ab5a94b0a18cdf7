"""Whole models on a GPU against torch in fp16: time with and without CUDA graphs, and accuracy.

    python benchmarks/cuda_models.py build --out build/gpu-models   # here: nvcc, no GPU
    python benchmarks/cuda_models.py run build/gpu-models           # there, see cuda_kernels.py
    python benchmarks/cuda_models.py --emulate                      # a small block, emulated

MiniLM and a GPT block are timed. Each recipe is compiled twice: with open sizes, launched kernel by
kernel, and with the sizes of --graph, which is recorded as a CUDA graph. Torch runs plain functions
of the same shape eagerly in fp16 (attention by scaled_dot_product_attention), and once more as a
CUDA graph of its own; its weights are random, so it has no accuracy. Accuracy is Spearman's
correlation on STS-B for MiniLM and nats per token for stories260k, computed from what the GPU
gave. Models and data are looked for in ../shared. The block "decodes" where it gets one token a
sequence; no past tokens are attended to.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

SHARED = Path(__file__).resolve().parent.parent.parent / "shared"
RECIPES = ("float", "w8a8-smooth", "fp8", "w4-g64-gptq", "llm-int8")
#: Batch and tokens that are timed.
SHAPES = {
    "minilm": ((1, 128), (8, 128), (64, 128), (8, 512)),
    "gpt": ((1, 1), (16, 1), (1, 512), (8, 512)),
}
#: Recipe and shape, the least speed of torch's, by model.
BARS = {("minilm", "w8a8-smooth"): 1.3, ("gpt", "w8a8-smooth"): 1.3, ("gpt", "w4-g64-gptq"): 2.0}
PLAN = "plan.json"


def build(options: argparse.Namespace) -> None:
    """Artifacts of every model and recipe, and the plan."""
    options.out.mkdir(parents=True, exist_ok=True)
    entries: list[dict[str, Any]] = []
    for model in options.models:
        source, calibration, scored = _source(model, options)
        if scored is not None:
            np.savez_compressed(options.out / f"{model}.npz", **scored)
        for recipe in options.recipes:
            entry: dict[str, Any] = {"model": model, "recipe": recipe}
            binds: dict[str, dict[str, int]] = {"open": {}}
            if model in SHAPES and not options.no_graphs:
                names = ("N", "T") if model == "minilm" else ("b", "t")
                binds["graph"] = dict(zip(names, options.graph, strict=True))
            for kind, bind in binds.items():
                name = f"{model}-{recipe}-{kind}"
                entry[kind] = _artifact(name, source, calibration, recipe, bind, options)
                print(f"{name}: {entry[kind]['library'] or entry[kind]['missing']}", flush=True)
            entries.append(entry)
    plan = {"architecture": options.arch, "graph": list(options.graph), "width": options.width,
            "heads": options.heads, "models": entries}  # fmt: skip
    (options.out / PLAN).write_text(json.dumps(plan, indent=1) + "\n", "utf-8")
    size = sum(path.stat().st_size for path in options.out.rglob("*") if path.is_file())
    print(f"{options.out}: {size / 1e6:.1f} MB")


def _source(model: str, options: argparse.Namespace) -> tuple[Any, Any, dict[str, Any] | None]:
    """A model, its calibration data, and what its accuracy is computed from."""
    if model == "gpt":
        from gpu.gpt import block_inputs, gpt_block

        calibration = block_inputs(8, min(64, 4 * options.heads), options.width)
        return gpt_block(options.width, options.heads), calibration, None
    sys.path.insert(0, str(SHARED))
    import realdata

    task = realdata.load(model)
    return task.model, task.calibration, {**task.inputs, "labels": task.labels}


def _artifact(
    name: str, source: Any, calibration: Any, recipe: str, bind: dict[str, int],
    options: argparse.Namespace,
) -> dict[str, Any]:  # fmt: skip
    import fewbits
    from gpu.build import keep_what_runs, tolerance

    if bind:
        calibration = _of_sizes(calibration, *bind.values())
    try:
        artifact = fewbits.compile(
            source, options.out / name, calibration=calibration, recipe=recipe, bind=bind,
            target=f"cuda-{options.arch.replace('_', '')}", to="build", samples=32, force=True,
            golden=2 if bind else 4,
        )  # fmt: skip
    except fewbits.FewbitsError as error:
        return {"library": None, "missing": f"{error.code}: {error}"}
    keep_what_runs(artifact)
    manifest = artifact.manifest
    return {
        "library": f"{name}/{manifest['library']}",
        "function": f"main_{options.arch}",
        "inputs": [[port["name"], port["dtype"]] for port in manifest["inputs"]],
        "tolerance": tolerance(recipe),
        "bits": manifest["weight_bits"],
    }


def _of_sizes(calibration: dict[str, np.ndarray], batch: int, tokens: int) -> dict[str, np.ndarray]:
    """Data for a model whose sizes are known: a sample is a batch of so many tokens.

    Sequences, and masks of them, are repeated or cut to the number of tokens.
    """
    found = {}
    for name, rows in calibration.items():
        count = max(1, len(rows) // batch)
        if name == "mask":
            mask = np.triu(np.full((tokens, tokens), rows.min(), rows.dtype), 1)
            found[name] = np.broadcast_to(mask, (count, batch, 1, tokens, tokens)).copy()
            continue
        places = np.arange(tokens) % rows.shape[1]
        chosen = rows[np.arange(count * batch) % len(rows)][:, places]
        found[name] = chosen.reshape(count, batch, *chosen.shape[1:])
    return found


def run(options: argparse.Namespace, folder: Path, emulated: bool) -> int:
    """Accuracy and times; the exit status."""
    if not emulated:
        import torch  # before TVM, which takes CUDA's run-time library from it

        if not torch.cuda.is_available():
            print("no GPU: --emulate runs a small block on an emulated one", file=sys.stderr)
            return 2
    from gpu.model_runs import accuracy_rows, checked, time_rows
    from gpu.model_tables import print_tables

    plan = json.loads((folder / PLAN).read_text("utf-8"))
    wrong = checked(plan, folder)
    found = {
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "architecture": plan["architecture"],
        "card": "emulated" if emulated else torch.cuda.get_device_name(0),
        "wrong": wrong,
        "accuracy": accuracy_rows(plan, folder),
        "times": [] if emulated else time_rows(plan, folder, SHAPES, options.rounds),
    }
    print_tables(found, BARS)
    if options.json is not None:
        options.json.write_text(json.dumps(found, indent=1) + "\n", "utf-8")
    return 1 if wrong else 0


def emulate(options: argparse.Namespace) -> int:
    """A small block with open and with known sizes, run on the emulated GPU."""
    os.environ["FEWBITS_CUDA"] = f"emulator:{options.arch}"
    from fewbits.targets.cuda import driver

    driver.prepare()
    with tempfile.TemporaryDirectory() as name:
        options.out, options.models, options.no_graphs = Path(name), ["gpt"], False
        options.width, options.heads, options.graph = 32, 2, (2, 5)
        options.recipes = options.recipes or ["w8a8-smooth", "w4-g64-gptq"]
        build(options)
        return run(options, Path(name), emulated=True)


def main() -> None:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--emulate", action="store_true", help="a small block, emulated")
    _shared(parser)
    steps = parser.add_subparsers(dest="step")
    first = steps.add_parser("build", help="compile; no GPU needed")
    first.add_argument("--out", type=Path, required=True)
    first.add_argument("--models", nargs="+", default=["minilm", "gpt", "stories260k"])
    first.add_argument("--no-graphs", action="store_true", help="open sizes only")
    second = steps.add_parser("run", help="time; a GPU, torch and TVM's runtime needed")
    second.add_argument("folder", type=Path)
    for step in (first, second):
        _shared(step)
    options = parser.parse_args()
    if options.step == "build":
        options.recipes = options.recipes or list(RECIPES)
        build(options)
    elif options.step == "run":
        raise SystemExit(run(options, options.folder, emulated=False))
    elif options.emulate:
        raise SystemExit(emulate(options))
    else:
        parser.error("say build, run, or --emulate")


def _shared(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--arch", default="sm_90a", choices=("sm_80", "sm_89", "sm_90a"))
    parser.add_argument("--recipes", nargs="+")
    parser.add_argument("--width", type=int, default=1024, help="of the GPT block")
    parser.add_argument("--heads", type=int, default=16, help="of the GPT block")
    parser.add_argument("--graph", type=int, nargs=2, default=(8, 128), metavar=("BATCH", "TOKENS"))
    parser.add_argument("--rounds", type=int, default=30, help="timed calls of each contender")
    parser.add_argument("--json", type=Path, help="write everything that was found")


if __name__ == "__main__":
    main()
