"""Accuracy of int8 models by observer, with and without equalization and bias correction.

    python benchmarks/calibration_study.py [--tasks kws vww] [--observers mse minmax]

Every figure is the score of the integer module, evaluated by the oracle on the whole evaluation
set, that is of the firmware to the bit. Models and data are in ``../shared`` and not part of this
repository.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from fewbits.compiler.importer import import_onnx
from fewbits.ops.evaluate import Evaluator
from fewbits.passes.base import PassContext, make_pass
from fewbits.passes.calibration import Calibration
from fewbits.targets.mcu.integer import IntegerModel, to_integer

SHARED = Path(__file__).resolve().parents[2] / "shared"
TASKS = ("kws", "vww", "resnet8", "ad")
OBSERVERS = ("minmax", "mse", "percentile", "entropy")
#: What runs around `quantize`: (column, before, after).
VARIANTS = (
    ("plain", (), ()),
    ("equalize", ("equalize",), ()),
    ("bias correction", (), ("bias-correction",)),
    ("both", ("equalize",), ("bias-correction",)),
)


def _realdata() -> ModuleType:
    specification = importlib.util.spec_from_file_location("realdata", SHARED / "realdata.py")
    if specification is None or specification.loader is None or not SHARED.is_dir():
        sys.exit(f"there are no models and data in {SHARED}")
    module = importlib.util.module_from_spec(specification)
    sys.modules["realdata"] = module  # its dataclasses look their module up
    specification.loader.exec_module(module)
    return module


def outputs_of(integer: IntegerModel, inputs: dict[str, np.ndarray]) -> np.ndarray:
    """Real outputs of the integer module, samples first."""
    codes = {}
    evaluator = Evaluator(integer.module)
    for name, meaning in zip(evaluator.input_names, integer.interface.inputs, strict=True):
        codes[name] = inputs[name]
        if meaning is not None:
            scale, zero_point = meaning
            steps = np.rint(inputs[name].astype(np.float32) / np.float32(scale)) + zero_point
            codes[name] = np.clip(steps, -128, 127).astype(np.int8)
    [name] = evaluator.output_names
    pieces = [values[name].numpy() for values in evaluator.batched(codes)]
    result = np.concatenate(pieces).astype(np.float32)
    result = result.reshape(len(result), *result.shape[2:])
    [meaning] = integer.interface.outputs
    return result if meaning is None else (result - meaning[1]) * np.float32(meaning[0])


def score(task: Any, observer: str, before: tuple[str, ...], after: tuple[str, ...]) -> float:
    """The task's score after these passes."""
    module = import_onnx(task.model).module
    samples = {key: np.asarray(value, np.float32) for key, value in task.calibration.items()}

    def batches() -> Iterator[dict[str, np.ndarray]]:
        yield samples

    context = PassContext(calibration=Calibration(batches, task.name))
    quantize = make_pass("quantize", {"activation_observer": observer})
    passes = [make_pass("canonicalize", {}), *(make_pass(name, {}) for name in before), quantize]
    for pass_ in [*passes, *(make_pass(name, {}) for name in after)]:
        module = pass_.apply(module, context)
    return task.score(outputs_of(to_integer(module), task.inputs))


def main() -> None:
    """Print one table per task as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--tasks", nargs="*", default=TASKS, choices=TASKS)
    parser.add_argument("--observers", nargs="*", default=OBSERVERS)
    chosen = parser.parse_args()
    realdata = _realdata()
    for name in chosen.tasks:
        task = realdata.load(name)
        print(f"\n{name}\n\n| observer | {' | '.join(v[0] for v in VARIANTS)} | seconds |")
        print(f"|---|{'---|' * (len(VARIANTS) + 1)}")
        for observer in chosen.observers:
            start = time.perf_counter()
            scores = [score(task, observer, before, after) for _, before, after in VARIANTS]
            cells = " | ".join(f"{value:.4f}" for value in scores)
            print(f"| {observer} | {cells} | {time.perf_counter() - start:.0f} |", flush=True)


if __name__ == "__main__":
    main()
