"""The verb ``tune``: what it accepts, what it prints."""

from __future__ import annotations

import json
import types
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from fewbits import FewbitsError
from fewbits.compiler import tuning
from fewbits.compiler.cli import output
from fewbits.compiler.cli.app import app
from fewbits.compiler.cli.tune import parse_sizes, parse_tracker
from fewbits.schedules.tuning.bench import Bench
from fewbits.schedules.tuning.folder import VARIABLE
from fewbits.targets.cpu.target import CpuTarget, tvm_target
from onnx import TensorProto, helper, numpy_helper
from typer.testing import CliRunner


class Halves:
    """Builder and runner: whatever is not the rule takes half the time."""

    def build(self, inputs: list[Any]) -> list[Any]:
        return [
            types.SimpleNamespace(artifact_path=str(number), error_msg=None)
            for number in range(len(inputs))
        ]

    def run(self, inputs: list[Any]) -> list[Any]:
        times = [1e-3 if str(one.artifact_path) == "0" else 5e-4 for one in inputs]
        results = [types.SimpleNamespace(run_secs=[time], error_msg=None) for time in times]
        return [types.SimpleNamespace(result=lambda r=result: r) for result in results]


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A dense layer in a file; a bench without a clock; records in a folder of this test."""

    def bench(target: CpuTarget, folder: Path, tracker: object) -> Bench:
        assert tracker is None
        return Bench(tvm_target(target), folder, Halves(), Halves(), 1)

    monkeypatch.setattr(tuning, "open_machines", bench)
    # The console is as wide as the environment was when another test made it.
    monkeypatch.setattr(output.console, "_width", 200)
    monkeypatch.setenv(VARIABLE, str(tmp_path / "records"))
    weight = np.random.default_rng(0).normal(size=(32, 48)).astype("float32")
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"], "dense [bold]")],
        "one",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 32])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(weight, "w")],
    )
    opset = [helper.make_opsetid("", 17)]
    path = tmp_path / "model.onnx"
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=9), path)
    return path


def invoke(*arguments: str) -> Any:
    return CliRunner().invoke(app, ["tune", *arguments])


def test_a_table_and_a_second_run(model: Path) -> None:
    first = invoke(str(model), "--bind", "N=8", "--trials", "3")
    assert first.exit_code == 0, first.output
    for text in ("N x 32 x 48", "dense [bold]", "N=8", "0.5"):
        assert text in first.output
    second = invoke(str(model), "--bind", "N=8", "--trials", "3")
    assert "known before" in second.output


def test_json(model: Path) -> None:
    result = invoke(str(model), "--json", "--bind", "N=8", "--bind", "N=2", "--trials", "2")
    found = json.loads(result.stdout)
    (workload,) = found["workloads"]
    assert (found["total"], found["interrupted"], workload["calls"]) == (1, False, 1)
    assert workload["layers"] == ["dense [bold]"]
    assert workload["record"]["bindings"] == [{"N": 8}, {"N": 2}]


def test_static_sizes(model: Path) -> None:
    result = invoke(str(model), "--json", "--static", "--bind", "N=8", "--trials", "2")
    (workload,) = json.loads(result.stdout)["workloads"]
    assert workload["title"] == "product 8 x 32 x 48"
    assert workload["record"]["bindings"] == [{}]
    assert invoke(str(model), "--static", "--bind", "N=8", "--bind", "N=2").exit_code == 1


def test_without_a_database(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "off")
    result = invoke(str(model), "--json")
    assert json.loads(result.stdout)["error"]["code"] == "unknown-option"


def test_sizes_and_trackers_are_read() -> None:
    assert parse_sizes(["N=1", "T=16", "T=128", "T=16"]) == {"N": [1], "T": [16, 128]}
    assert parse_tracker(None, None) is None
    assert parse_tracker("host:9190", "desk") == ("host", 9190, "desk")


@pytest.mark.parametrize(
    ("address", "key"),
    [("host:9190", None), (None, "desk"), ("host", "desk"), ("host:x", "desk"), (":1", "desk"),
     ("host:70000", "desk"), ("host:9190", "")],
)  # fmt: skip
def test_trackers_that_make_no_sense(address: str | None, key: str | None) -> None:
    with pytest.raises(FewbitsError) as error:
        parse_tracker(address, key)
    assert error.value.code == "unknown-option"
