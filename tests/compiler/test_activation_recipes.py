"""Recipes with few-bit activations on real transformers: the accuracy that they promise."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from fewbits.compiler.importer import import_onnx
from fewbits.compiler.recipe import load_recipe
from fewbits.ops.evaluate import Evaluator
from fewbits.passes.base import PassContext
from fewbits.passes.calibration import Calibration
from fewbits.passes.canonicalize import canonicalize

ROOT = Path(__file__).resolve().parents[2]
SHARED = ROOT.parent / "shared"


def task_of(name: str) -> Any:
    if not (SHARED / "realdata.py").is_file():
        pytest.skip("there are no real models in ../shared")
    specification = importlib.util.spec_from_file_location("realdata", SHARED / "realdata.py")
    assert specification is not None and specification.loader is not None
    realdata = importlib.util.module_from_spec(specification)
    sys.modules["realdata"] = realdata  # its dataclasses look their module up
    specification.loader.exec_module(realdata)
    return realdata.load(name)


class Subject:
    """A model, few samples of its data, and its float outputs."""

    def __init__(self, model: Any, calibration: Any, inputs: Any) -> None:
        self.module = canonicalize(import_onnx(model, dynamic=True).module)
        self._calibration, self._inputs = calibration, inputs
        self.exact = self.outputs(self.module)

    def outputs(self, module: Any) -> np.ndarray:
        [values] = Evaluator(module).batched(self._inputs)
        return next(iter(values.values())).numpy()

    def compressed(self, recipe: str) -> np.ndarray:
        count = len(next(iter(self._calibration.values())))
        calibration = Calibration(lambda: iter([self._calibration]), "test", count)
        context, module = PassContext(calibration=calibration), self.module
        loaded = load_recipe(recipe)
        if recipe == "w8a8-smooth":
            loaded = loaded.with_options({"smooth": {"samples": 128}})
        for step in loaded.build():
            module = step.apply(module, context)
        return self.outputs(module)


@pytest.fixture(scope="module")
def minilm() -> Subject:
    task = task_of("minilm")
    calibration = {key: array[:16, :48] for key, array in task.calibration.items()}
    # Sentences of like length, so that none is mostly padding.
    lengths = task.inputs["attention_mask"].sum(1)
    rows = np.flatnonzero(lengths == 14)[:32]
    inputs = {key: array[rows, :14] for key, array in task.inputs.items()}
    return Subject(task.model, calibration, inputs)


@pytest.mark.parametrize(
    ("recipe", "bar"),
    [("w8a8", 0.995), ("w8a8-smooth", 0.9975), ("llm-int8", 0.9985), ("fp8", 0.995)],
)
def test_sentence_embeddings_keep_their_direction(minilm: Subject, recipe: str, bar: float) -> None:
    few = minilm.compressed(recipe)
    norms = np.linalg.norm(few, axis=1) * np.linalg.norm(minilm.exact, axis=1)
    cosine = ((few * minilm.exact).sum(1) / norms).mean()
    assert bar <= cosine < 1.0


def test_injected_outliers_collapse_plain_int8_and_no_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    task = task_of("stories260k")
    calibration = {key: array[:8] for key, array in task.calibration.items()}
    inputs = {key: array[:8] for key, array in task.inputs.items()}
    monkeypatch.syspath_prepend(str(ROOT / "models"))
    from outliers import inject_outliers

    hard, _ = inject_outliers(onnx.load(task.model), columns=7, magnitude=20.0)
    subject = Subject(hard, calibration, inputs)

    def error(recipe: str) -> float:
        return float(np.square(subject.compressed(recipe) - subject.exact).mean())

    plain = error("w8a8")
    assert error("w8a8-smooth") < plain / 10
    assert error("llm-int8") < plain / 10
