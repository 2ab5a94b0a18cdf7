"""Quality of one-shot weight compression on real models, its cost, and solvers against each other.

    python benchmarks/one_shot.py [--tasks minilm stories260k] [--recipes w4-g64-gptq nf4-b64]
    python benchmarks/one_shot.py --tasks minilm --recipes sparse24 sparse24-compensated
    python benchmarks/one_shot.py --cost          # calibration + GPTQ of MiniLM, 128 x 128 tokens
    python benchmarks/one_shot.py --losses        # magnitude, SparseGPT, exact OBS layer by layer

MiniLM: mean cosine to the float embedding over STS-B sentences, and Spearman's correlation with
the human scores (needs all sentences). stories260k: nats per token over the whole evaluation set.
Calibration data are all samples that are not for evaluation: 400 sentences (12,833 tokens without
padding) of another kind of text for MiniLM, 40 stories of 128 tokens. Times are processor seconds.
Modules run in the oracle evaluator. Models and data are in ``../shared`` and no part of this
repository.
"""

from __future__ import annotations

import argparse
import importlib.util
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fewbits.compiler.importer import import_onnx
from fewbits.compiler.recipe import Recipe, load_recipe, recipe_names
from fewbits.ops.evaluate import Evaluator
from fewbits.passes.base import PassContext, make_pass
from fewbits.passes.calibration import Calibration
from fewbits.passes.layers import find_layers

SHARED = Path(__file__).resolve().parents[2] / "shared"
#: Sizes that are bound; None: all stay open.
TASKS: dict[str, dict[str, int] | None] = {"minilm": None, "stories260k": {"N": 1, "T": 128}}
RECIPES = (
    "w4-g128", "w4-g64-rtn", "w4-g64-gptq", "w4-g64-gptq-plain", "nf4-b64", "w3-bcq", "ant4",
    "sparse24", "sparsegpt50", "magnitude50", "magnitude24",
)  # fmt: skip
#: Baselines that no built-in recipe is.
_AFFINE = {"format": "uint4", "symmetric": False, "group_size": 64}
EXTRA: dict[str, list[Any]] = {
    "w4-g64-rtn": [{"quantize_weights": {"format": "int4", "group_size": 64}}],
    "w4-g64-gptq-plain": [{"quantize_weights": {**_AFFINE, "solver": "gptq"}}],
    "w4-g64-descent": [
        {"quantize_weights": {**_AFFINE, "solver": "descent", "activation_order": True}}
    ],
    "w4-g64-descent-compensated": [
        {
            "quantize_weights": {
                **_AFFINE,
                "solver": "descent",
                "activation_order": True,
                "compensate": True,
            }
        }
    ],
    "magnitude50": [{"prune": {"solver": "magnitude", "storage": "float16"}}],
    "magnitude24": [{"prune": {"solver": "magnitude", "sparsity": "2:4", "storage": "float16"}}],
    "sparse24-plain": [{"prune": {"sparsity": "2:4", "storage": "float16"}}],
    "sparsegpt50-plain": [{"prune": {"storage": "float16"}}],
}


def realdata() -> Any:
    """The loader of models and data."""
    spec = importlib.util.spec_from_file_location("realdata", SHARED / "realdata.py")
    if spec is None or spec.loader is None or not (SHARED / "realdata.py").is_file():
        sys.exit(f"no models: {SHARED} is not there")
    module = importlib.util.module_from_spec(spec)
    sys.modules["realdata"] = module
    spec.loader.exec_module(module)
    return module


def recipe_of(name: str) -> Recipe:
    """A built-in recipe or one of `EXTRA`."""
    if name in EXTRA:
        return Recipe(name=name, passes=("canonicalize", *EXTRA[name]))
    return load_recipe(name)


def compress(module: Any, recipe: Recipe, data: dict[str, np.ndarray]) -> tuple[Any, PassContext]:
    """The module after a recipe, and what its passes noted."""
    context = PassContext(calibration=Calibration(lambda: [data], "real", chunk=16))
    for one in recipe.build():
        module = one.apply(module, context)
    return module, context


def outputs(module: Any, inputs: dict[str, np.ndarray]) -> np.ndarray:
    """The first output over all samples; without the padding where lengths are open."""
    evaluator = Evaluator(module)
    name = evaluator.output_names[0]
    if evaluator.batch is None:
        found = [v[name].numpy() for v in evaluator.batched(inputs, chunk=32)]
        return np.concatenate(found)
    lengths = inputs["attention_mask"].sum(axis=1)
    order = np.argsort(lengths, kind="stable")
    parts = []
    for some in np.array_split(order, -(-len(order) // 64)):
        piece = {key: array[some, : lengths[some].max()] for key, array in inputs.items()}
        parts += [values[name].numpy() for values in evaluator.batched(piece)]
    return np.concatenate(parts)[np.argsort(order)]


def load(task_name: str) -> tuple[Any, Any]:
    """The task and its module."""
    task, sizes = realdata().load(task_name), TASKS[task_name]
    if sizes is None:
        return task, import_onnx(task.model, dynamic=True).module
    return task, import_onnx(task.model, bind=_bind(task.model, sizes)).module


def quality(task_name: str, recipes: list[str], limit: int | None) -> None:
    """A table row per recipe."""
    task, float_module = load(task_name)
    inputs = task.inputs
    if limit is not None and task_name == "minilm":
        rows = np.linspace(0, len(next(iter(inputs.values()))) - 1, limit).astype(int)
        inputs = {key: array[rows] for key, array in inputs.items()}
    data = dict(task.calibration)
    canonical = make_pass("canonicalize", {}).apply(float_module, PassContext())
    before = outputs(canonical, inputs)
    whole = limit is None or task_name != "minilm"
    score = task.score(_squeeze(before)) if whole else float("nan")
    print(f"{task_name}: float {task.metric.__name__} {score:.4f}", flush=True)
    for name in recipes:
        started = time.process_time()
        module, context = compress(float_module, recipe_of(name), data)
        seconds = time.process_time() - started
        after = outputs(module, inputs)
        a, b = _rows(before), _rows(after)
        cosine = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
        bits = sum(note.data.get("total_bits", 0) for note in context.notes)
        weights = sum(layer.weight.size for layer in find_layers(module) if layer.tensor)
        score = task.score(_squeeze(after)) if whole else float("nan")
        print(
            f"  {name:26s} score {score:.4f}  cosine {cosine.mean():.5f}  "
            f"{bits / max(weights, 1):.3f} bits/weight  {seconds:.0f} CPU s",
            flush=True,
        )


def losses(task_name: str) -> None:
    """Layer losses of pruning half the weights, every layer on the same (float) inputs."""
    task, float_module = load(task_name)
    module = make_pass("canonicalize", {}).apply(float_module, PassContext())
    from fewbits.passes.sequential import Sweep
    from fewbits.passes.solvers.options import SolverOptions
    from fewbits.passes.solvers.solve import solve

    data = dict(task.calibration)
    sweep = Sweep(module, Calibration(lambda: [data], "real", chunk=16))
    solvers = ("obs", "sparsegpt", "magnitude")
    print(f"{task_name}, half of the weights zero: layer loss " + " <= ".join(solvers))
    wrong = 0
    for layer in find_layers(module):
        if layer.kind == "embedding":
            continue
        (moments,) = sweep.moments(layer)
        weight = torch.from_numpy(np.array(layer.matrix))
        found = [
            solve(weight, moments, SolverOptions(solver, sparsity=0.5)).loss  # type: ignore[arg-type]
            for solver in solvers
        ]
        ordered = found[0] <= found[1] <= found[2]
        wrong += not ordered
        text = "  ".join(f"{loss:10.5f}" for loss in found)
        print(f"  {layer.name:32s} {text}  {'' if ordered else 'NOT ORDERED'}", flush=True)
    print(f"  {wrong} layers out of order")


def cost() -> None:
    """Time and memory of calibration with GPTQ; onnxruntime on the same data beside it."""
    import onnxruntime

    task = realdata().load("minilm")
    ids = np.concatenate([task.calibration["input_ids"]] * 2, axis=1)[:128]
    data = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
    imported = import_onnx(task.model, dynamic=True)  # as every recipe with open sizes does
    module = make_pass("canonicalize", {}).apply(imported.module, PassContext())
    calibration = Calibration(lambda: [data], "real", chunk=16)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    # Threads that wait by spinning would count as work.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(str(task.model), options)

    def run_onnxruntime() -> None:
        for start in range(0, 128, 16):
            session.run(None, {key: array[start : start + 16] for key, array in data.items()})

    def run_calibration() -> None:
        for _ in calibration.run(module, []):
            pass

    def run_gptq() -> None:
        compress(imported.module, load_recipe("w4-g64-gptq"), data)

    runtime = [timed(run_onnxruntime) for _ in range(3)]
    plain = [timed(run_calibration) for _ in range(3)]
    runtime += [timed(run_onnxruntime) for _ in range(3)]
    (wall, busy), (our_wall, our_busy) = (tuple(map(min, zip(*t, strict=True))) for t in
                                          (runtime, plain))  # fmt: skip
    print(f"{torch.get_num_threads()} threads; least of several runs")
    print(f"onnxruntime           {wall:6.1f} s wall {busy:6.1f} s CPU")
    print(
        f"one calibration pass  {our_wall:6.1f} s wall {our_busy:6.1f} s CPU: "
        f"{our_wall / wall:.2f}x, {our_busy / busy:.2f}x"
    )
    wall, busy = timed(run_gptq)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"w4-g64-gptq           {wall:6.1f} s wall {busy:6.1f} s CPU, peak {peak:.2f} GiB")


def timed(run: Callable[[], None]) -> tuple[float, float]:
    """Seconds by the clock and of the processor."""
    started, busy = time.perf_counter(), time.process_time()
    run()
    return time.perf_counter() - started, time.process_time() - busy


def _bind(model: Path, wanted: dict[str, int]) -> dict[str, int]:
    """The bindings that the model has symbols for."""
    import onnx

    graph = onnx.load(model, load_external_data=False).graph
    names = {d.dim_param for i in graph.input for d in i.type.tensor_type.shape.dim}
    return {name: size for name, size in wanted.items() if name in names}


def _rows(array: np.ndarray) -> np.ndarray:
    return array.reshape(-1, array.shape[-1]).astype(np.float64)


def _squeeze(array: np.ndarray) -> np.ndarray:
    """Without the axis of the module's own batch of 1."""
    return array[:, 0] if array.ndim > 2 and array.shape[1] == 1 else array


def main() -> None:
    """Parse the command line and print tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tasks", nargs="+", choices=list(TASKS), default=list(TASKS))
    parser.add_argument("--recipes", nargs="+", choices=[*EXTRA, *recipe_names()], default=RECIPES)
    parser.add_argument("--limit", type=int, help="so many MiniLM sentences, without Spearman")
    parser.add_argument("--cost", action="store_true", help="time and memory of GPTQ on MiniLM")
    parser.add_argument("--losses", action="store_true", help="pruning solvers layer by layer")
    chosen = parser.parse_args()
    if chosen.cost:
        cost()
    elif chosen.losses:
        losses("stories260k")
    else:
        for task in chosen.tasks:
            quality(task, list(chosen.recipes), chosen.limit)


if __name__ == "__main__":
    main()
