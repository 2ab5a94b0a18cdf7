"""Accuracy of transformers with few-bit activations: smoothing, outlier splitting, FP8, int8.

    python benchmarks/activations.py [--tasks minilm stories260k] [--only w8a8 fp8] [--limit 400]
    python benchmarks/activations.py --outliers        # the same with injected outlier columns

MiniLM: mean cosine to the float embedding over the STS-B sentences, and Spearman's correlation
with the human scores. stories260k: nats per token and their change. Recipes are the built-in ones
of these names; the rest is spelt out below. Models and data are in ``../shared`` and not part of
this repository.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
from fewbits.compiler.importer import import_onnx
from fewbits.compiler.recipe import Recipe, load_recipe, recipe_names
from fewbits.ops.evaluate import Evaluator
from fewbits.passes.base import Pass, PassContext
from fewbits.passes.calibration import Calibration
from fewbits.passes.canonicalize import canonicalize

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared"
TASKS = ("minilm", "stories260k")
#: Calibration samples; sequences are short, so all of MiniLM's would not say more.
SAMPLES = 128
#: Sentences evaluated at once.
CHUNK = 32
_WEIGHTS = {
    "quantize_weights": {"format": "int8-narrow", "strategy": "channel", "scale_storage": "float32"}
}
_STATIC = {"strategy": "tensor", "dynamic": False}


def _int8(*before: Any, **activations: Any) -> Recipe:
    passes = ["canonicalize", *before, _WEIGHTS, {"quantize_activations": activations}]
    return Recipe.model_validate({"passes": passes})


_SPLIT = {"mode": "static", "threshold": 6.0}
_FP8 = {"format": "fp8_e4m3fn", "strategy": "channel", "scale_storage": "float32"}
_SEARCH = {"alpha": "search", "fold": ["norm", "previous", "multiply"]}
#: name → recipe; the built-in ones come first.
VARIANTS: dict[str, Recipe] = {
    "w8a8 static minmax": _int8(**_STATIC),
    "w8a8 static mse": _int8(**_STATIC, observer="mse"),
    "w8a8 dynamic tensor": _int8(strategy="tensor"),
    "w8a8 token, products": _int8(products=True),
    "smooth 0.5 where it folds": _int8("smooth"),
    "smooth 0.5 everywhere": _int8({"smooth": {**_SEARCH, "alpha": 0.5}}),
    "smooth 0.85 everywhere": _int8({"smooth": {**_SEARCH, "alpha": 0.85}}),
    "smooth search static": _int8({"smooth": {**_SEARCH, "strategy": "tensor"}}, **_STATIC),
    "smooth search static mse": _int8(
        {"smooth": {**_SEARCH, "strategy": "tensor"}}, **_STATIC, observer="mse"
    ),
    "llm-int8, int8 outliers": Recipe.model_validate(
        {"passes": ["canonicalize", {"split_outliers": {**_SPLIT, "outlier_weights": "int8"}}]}
    ),
    "llm-int8 dynamic": Recipe.model_validate(
        {"passes": ["canonicalize", {"split_outliers": {**_SPLIT, "mode": "dynamic"}}]}
    ),
    "llm-int8 threshold 3": Recipe.model_validate(
        {"passes": ["canonicalize", {"split_outliers": {**_SPLIT, "threshold": 3.0}}]}
    ),
    "fp8 static": Recipe.model_validate(
        {
            "passes": [
                "canonicalize",
                {"quantize_weights": _FP8},
                {"quantize_activations": {"format": "fp8_e4m3fn", **_STATIC}},
            ]
        }
    ),
    "fp8 smoothed": Recipe.model_validate(
        {
            "passes": [
                "canonicalize",
                {"smooth": {**_SEARCH, "format": "fp8_e4m3fn", "weight_format": "fp8_e4m3fn"}},
                {"quantize_weights": _FP8},
                {"quantize_activations": {"format": "fp8_e4m3fn"}},
            ]
        }
    ),
    "fp8 e3m4": Recipe.model_validate(
        {
            "passes": [
                "canonicalize",
                {"quantize_weights": {**_FP8, "format": "fp8_e3m4"}},
                {"quantize_activations": {"format": "fp8_e3m4"}},
            ]
        }
    ),
}
BUILT_IN = ("w8a8", "w8a8-smooth", "llm-int8", "fp8", "sparse24-int8")


def _import(path: Path) -> ModuleType:
    """A file that is no part of the package."""
    specification = importlib.util.spec_from_file_location(path.stem, path)
    if specification is None or specification.loader is None or not path.is_file():
        sys.exit(f"there is no {path}")
    module = importlib.util.module_from_spec(specification)
    sys.modules[path.stem] = module  # its dataclasses look their module up
    specification.loader.exec_module(module)
    return module


@dataclasses.dataclass
class Bench:
    """A task with its float module and outputs."""

    task: Any
    module: Any
    inputs: dict[str, np.ndarray]
    exact: np.ndarray

    @classmethod
    def load(cls, name: str, limit: int | None, outliers: bool) -> Bench:
        """Import the model; with `limit`, evaluate only so many sentences or pairs of them."""
        task = _import(SHARED / "realdata.py").load(name)
        inputs, labels = task.inputs, task.labels
        if limit is not None:
            rows = np.arange(min(limit, len(labels)))
            if name == "minilm":
                rows = np.concatenate([rows, rows + len(labels)])
            inputs = {key: array[rows] for key, array in inputs.items()}
            task = dataclasses.replace(task, labels=labels[:limit])
        task = dataclasses.replace(task, inputs=inputs)
        model = onnx.load(task.model)
        if outliers:
            outliers_of = _import(ROOT / "models" / "outliers.py")
            model, _ = outliers_of.inject_outliers(model, columns=7, magnitude=20.0)
        module = canonicalize(import_onnx(model, dynamic=True).module)
        return cls(task, module, inputs, outputs_of(module, inputs))

    def compress(self, passes: list[Pass]) -> Any:
        """The module after a recipe's passes."""
        data = {key: array[:SAMPLES] for key, array in self.task.calibration.items()}
        calibration = Calibration(lambda: iter([data]), self.task.name, SAMPLES)
        context, module = PassContext(calibration=calibration), self.module
        for step in passes:
            module = step.apply(module, context)
        return module

    def row(self, outputs: np.ndarray) -> str:
        """The task's figures of a model's outputs."""
        if self.task.name != "minilm":
            before, after = self.task.score(self.exact), self.task.score(outputs)
            return f"{after:.4f} nats  {100 * (after / before - 1):+7.3f} %"
        norms = np.linalg.norm(outputs, axis=1) * np.linalg.norm(self.exact, axis=1)
        cosine = ((outputs * self.exact).sum(1) / norms).mean()
        before, after = self.task.score(self.exact), self.task.score(outputs)
        return f"cosine {cosine:.5f}  Spearman {after:.4f} ({after - before:+.4f})"


def outputs_of(module: Any, inputs: dict[str, np.ndarray]) -> np.ndarray:
    """The first output, samples first; sentences of like length together, without padding."""
    evaluator = Evaluator(module)
    [name, *_] = evaluator.output_names
    first = next(iter(inputs.values()))
    lengths = inputs.get("attention_mask", np.ones_like(first)).sum(1)
    order = np.argsort(lengths, kind="stable")
    found: dict[int, np.ndarray] = {}
    for start in range(0, len(order), CHUNK):
        rows = order[start : start + CHUNK]
        piece = {key: array[rows, : lengths[rows].max()] for key, array in inputs.items()}
        [values] = evaluator.batched(piece, chunk=CHUNK)
        found.update(zip(rows.tolist(), values[name].numpy(), strict=True))
    return np.stack([found[row] for row in range(len(first))])


def main() -> None:
    """Print a table for each task."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tasks", nargs="+", default=TASKS, choices=TASKS)
    parser.add_argument("--only", nargs="+", help="recipes, of those that are printed otherwise")
    parser.add_argument("--limit", type=int, help="evaluate only so many sentences")
    parser.add_argument("--outliers", action="store_true", help="inject outlier columns first")
    arguments = parser.parse_args()
    recipes = {name: load_recipe(name) for name in BUILT_IN if name in recipe_names()} | VARIANTS
    chosen = arguments.only or list(recipes)
    for name in arguments.tasks:
        bench = Bench.load(name, arguments.limit, arguments.outliers)
        title = f"{name}, 7 outlier columns x 20" if arguments.outliers else name
        print(f"{title}: float {bench.task.score(bench.exact):.4f}", flush=True)
        for recipe in chosen:
            start = time.perf_counter()
            module = bench.compress(recipes[recipe].build())
            made = time.perf_counter() - start
            row = bench.row(outputs_of(module, bench.inputs))
            print(f"  {recipe:26s} {row}   compressed in {made:.0f} s", flush=True)


if __name__ == "__main__":
    main()
