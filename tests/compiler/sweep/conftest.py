"""A family of two small classifiers with labelled data, and an executor without processes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from fewbits.compiler.sweep.work import run_cell
from onnx import TensorProto, helper, numpy_helper


def make_classifier(width: int, seed: int = 0) -> onnx.ModelProto:
    """x [N, 8] → up [width] → relu → down [8] → head [4], biases after the first two."""
    random = np.random.default_rng(seed)
    weights = {
        "up.weight": random.normal(size=(8, width)),
        "up.bias": random.normal(size=width),
        "down.weight": random.normal(size=(width, 8)),
        "head.weight": random.normal(size=(8, 4)),
    }
    nodes = [
        helper.make_node("MatMul", ["x", "up.weight"], ["u"], "up"),
        helper.make_node("Add", ["u", "up.bias"], ["b"], "bias"),
        helper.make_node("Relu", ["b"], ["r"], "relu"),
        helper.make_node("MatMul", ["r", "down.weight"], ["d"], "down"),
        helper.make_node("MatMul", ["d", "head.weight"], ["logits"], "head"),
    ]
    graph = helper.make_graph(
        nodes,
        "classifier",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 8])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 4])],
        [numpy_helper.from_array(v.astype(np.float32), k) for k, v in weights.items()],
    )
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9, producer_name="test"
    )


def float_logits(model: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    """The classifier in numpy."""
    weights = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    inner = np.maximum(x @ weights["up.weight"] + weights["up.bias"], 0)
    return inner @ weights["down.weight"] @ weights["head.weight"]


@pytest.fixture
def family(tmp_path: Path) -> Path:
    """A folder with `small.onnx`, `large.onnx`, `calibration.npz` and `eval.npz`."""
    folder = tmp_path / "family"
    folder.mkdir()
    x = np.random.default_rng(1).normal(size=(40, 8)).astype(np.float32)
    for name, width in (("small", 8), ("large", 24)):
        onnx.save(make_classifier(width), folder / f"{name}.onnx")
    labels = float_logits(make_classifier(24), x).argmax(1)
    np.savez(folder / "calibration.npz", x=x[:8])
    np.savez(folder / "eval.npz", x=x, labels=labels)
    return folder


class Inline:
    """Runs jobs one after the other in this process.

    Args:
        work: what is done with each.
        stop_after: raise KeyboardInterrupt instead of the next one.
    """

    def __init__(
        self, work: Callable[[Any], dict[str, Any]] = run_cell, stop_after: int | None = None
    ) -> None:
        self.work, self.stop_after, self.jobs = work, stop_after, []

    def run(self, jobs: Sequence[Any]) -> Iterator[tuple[Any, dict[str, Any]]]:
        for job in jobs:
            if len(self.jobs) == self.stop_after:
                raise KeyboardInterrupt
            self.jobs.append(job)
            yield job, self.work(job)


@pytest.fixture
def inline() -> type[Inline]:
    return Inline
