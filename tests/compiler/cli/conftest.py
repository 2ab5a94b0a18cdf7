"""A small model, its data, and the command line in this process."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from fewbits.compiler.cli import app
from onnx import TensorProto, helper, numpy_helper
from typer.testing import CliRunner


@dataclasses.dataclass(frozen=True)
class Result:
    """What one invocation left: exit status and both streams."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Cli = Callable[..., Result]


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch) -> Cli:
    """``cli("compile", path, ...)`` runs a verb."""
    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments: object) -> Result:
        done = CliRunner().invoke(app, [str(a) for a in arguments], catch_exceptions=False)
        return Result(done.exit_code, done.stdout, done.stderr)

    return run


def _small_model(**changes: Any) -> onnx.ModelProto:
    """conv → relu → mean → dense on a 6 by 6 image, 4 outputs."""
    random = np.random.default_rng(0)
    weights = {
        "w": random.normal(size=(4, 2, 3, 3)).astype("float32"),
        "b": random.normal(size=4).astype("float32"),
        "m": random.normal(size=(4, 4)).astype("float32"),
        **changes.get("weights", {}),
    }
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["c"], "conv", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"], "relu"),
        helper.make_node("GlobalAveragePool", ["r"], ["p"], "pool"),
        helper.make_node("Flatten", ["p"], ["f"], "flatten"),
        helper.make_node("MatMul", ["f", "m"], ["y"], "dense"),
        *changes.get("nodes", []),
    ]
    shape = changes.get("shape", (1, 2, 6, 6))
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    opset = changes.get("opset", 17)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)


@pytest.fixture
def small_model() -> Callable[..., onnx.ModelProto]:
    """The small model with other ``weights``, ``shape``, ``opset``, or more ``nodes``."""
    return _small_model


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "small.onnx"
    onnx.save(_small_model(), path)
    return path


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "data.npz"
    np.savez(path, x=np.random.default_rng(1).normal(size=(8, 2, 6, 6)).astype("float32"))
    return path


@pytest.fixture(scope="session")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small model compiled for this machine; treat it as read only."""
    folder = tmp_path_factory.mktemp("artifact")
    onnx.save(_small_model(), folder / "small.onnx")
    np.savez(
        folder / "data.npz",
        x=np.random.default_rng(1).normal(size=(8, 2, 6, 6)).astype("float32"),
        labels=np.arange(8) % 4,
    )
    done = CliRunner().invoke(
        app,
        ["compile", str(folder / "small.onnx"), "--target", "c", "--calibration",
         str(folder / "data.npz"), "--out", str(folder / "build")],
    )  # fmt: skip
    assert done.exit_code == 0, done.stderr
    return folder / "build"
