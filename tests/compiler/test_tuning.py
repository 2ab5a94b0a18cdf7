"""Tuning from a model to its library: records appear, compilations use them, results stay."""

from __future__ import annotations

import hashlib
import json
import time
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from fewbits import FewbitsError
from fewbits.compiler import driver
from fewbits.compiler.artifact import Artifact
from fewbits.compiler.options import Options
from fewbits.compiler.tuning import Plan, TuningResult, tune_model
from fewbits.schedules.tuning.bench import Bench, evaluator_config, local_bench
from fewbits.schedules.tuning.database import Database
from fewbits.targets.cpu.target import TARGETS, CpuTarget, tvm_target
from fewbits.targets.cpu.tuning import cpu_of, kernel_linker
from onnx import TensorProto, helper, numpy_helper


def model(*, small: bool = False) -> onnx.ModelProto:
    """[N, T, 64] through two layers of one shape and one of another; or the first alone."""
    sizes = {"w1": (64, 64), "w2": (64, 64), "w3": (64, 48)}
    random = np.random.default_rng(0)
    result = "a" if small else "y"
    weights = {name: random.normal(size=size).astype("float32") for name, size in sizes.items()}
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "w1"], ["a"], "first"),
            helper.make_node("Relu", ["a"], ["b"], "r1"),
            helper.make_node("MatMul", ["b", "w2"], ["c"], "second"),
            helper.make_node("Relu", ["c"], ["d"], "r2"),
            helper.make_node("MatMul", ["d", "w3"], ["y"], "third"),
        ][: 1 if small else 5],
        "layers",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", "T", 64])],
        [helper.make_tensor_value_info(result, TensorProto.FLOAT, None)],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


class Pretender:
    """Builder and runner at once: every kernel is faster than the ones built before it."""

    def __init__(self, stop_at: int | None = None) -> None:
        self.built, self.stop_at = 0, stop_at

    def build(self, inputs: list[Any]) -> list[Any]:
        names = [str(self.built + number) for number in range(len(inputs))]
        self.built += len(inputs)
        return [types.SimpleNamespace(artifact_path=name, error_msg=None) for name in names]

    def run(self, inputs: list[Any]) -> list[Any]:
        if self.stop_at is not None and self.built >= self.stop_at:
            raise KeyboardInterrupt
        results = [
            types.SimpleNamespace(run_secs=[1e-3 / (int(one.artifact_path) + 1)], error_msg=None)
            for one in inputs
        ]
        return [types.SimpleNamespace(result=lambda r=result: r) for result in results]


def tuned(
    folder: Path, pretender: Pretender | None = None, *, recipe: str = "float", again: bool = False,
    trials: int = 3, **sizes: list[int],
) -> TuningResult:  # fmt: skip
    def open_bench(target: CpuTarget, work: Path) -> Bench:
        one = pretender or Pretender()
        return Bench(tvm_target(target), work, one, one, 1)

    plan = Plan(sizes, trials, again, folder)
    options = Options(target="cpu", recipe=recipe)
    return tune_model(model(), options, plan, open_bench=open_bench)


def compiled(
    out: Path, tuning: Path | None, recipe: str = "float", *, small: bool = False
) -> Artifact:
    options = Options(target="cpu", recipe=recipe, tuning=tuning)
    artifact = driver.compile(model(small=small), out, options)
    assert isinstance(artifact, Artifact)
    return artifact


def library_hash(artifact: Artifact) -> str:
    return hashlib.sha256((artifact.folder / "model.so").read_bytes()).hexdigest()


def test_every_workload_has_a_record_with_its_layers(tmp_path: Path) -> None:
    result = tuned(tmp_path, N=[1], T=[16])
    assert not result.interrupted and result.total == 2 == len(result.rows)
    assert {row.layers: row.calls for row in result.rows} == {
        ("first", "second"): 2,
        ("third",): 1,
    }
    records = [json.loads(line) for line in result.database.read_text().splitlines()]
    assert all(record["bindings"] == [{"N": 1, "T": 16}] for record in records)
    assert all(record["sizes"] != record["rule"] for record in records)
    assert [row.record.model_dump(mode="json") for row in result.rows if row.record] == records


@pytest.mark.parametrize("recipe", ["float", "nf4-b64"])
def test_compilations_use_records(tmp_path: Path, recipe: str) -> None:
    tuned(tmp_path / "records", recipe=recipe)
    plain = compiled(tmp_path / "plain", None, recipe)
    faster = compiled(tmp_path / "faster", tmp_path / "records", recipe)
    again = compiled(tmp_path / "again", tmp_path / "records", recipe)
    assert plain.manifest["tuning"]["tuned"] == 0
    assert not any("tuned" in row["kernel"] for row in plain.manifest["layers"])
    figures = faster.manifest["tuning"]
    assert figures["tuned"] == figures["kernels"] > 0
    assert [row["name"] for row in faster.manifest["layers"] if "tuned" in row["kernel"]] == [
        "first", "second", "third",
    ]  # fmt: skip
    assert faster.manifest["golden"]["difference"] <= faster.manifest["float_match"]
    assert library_hash(faster) == library_hash(again) != library_hash(plain)


def test_damaged_records_are_left_out(tmp_path: Path) -> None:
    result = tuned(tmp_path / "records")
    lines = result.database.read_text().splitlines()
    impossible = {**json.loads(lines[0]), "sizes": [14, 6, 14]}
    result.database.write_text(f"{json.dumps(impossible)}\n{lines[1]}\nnot a record\n")
    manifest = compiled(tmp_path / "out", tmp_path / "records").manifest
    assert manifest["tuning"] == {"kernels": 2, "tuned": 1, "ignored_lines": 1}
    assert tuned(tmp_path / "records").ignored_lines == 1


def test_what_is_known_is_skipped_unless_asked_for_again(tmp_path: Path) -> None:
    tuned(tmp_path, N=[1], T=[16])
    pretender = Pretender()
    result = tuned(tmp_path, pretender, N=[1], T=[16])
    assert [row.known for row in result.rows] == [True, True] and pretender.built == 0
    tuned(tmp_path, pretender, N=[1], T=[16], again=True)
    assert pretender.built == 6
    tuned(tmp_path, pretender, N=[1], T=[16, 32])
    assert pretender.built == 12


def test_several_sizes_give_one_record_of_all(tmp_path: Path) -> None:
    for row in tuned(tmp_path, N=[1, 2], T=[8, 16]).rows:
        assert row.record is not None
        assert list(row.record.bindings) == [
            {"N": n, "T": t} for n in (1, 2) for t in (8, 16)
        ]  # fmt: skip
        assert len(row.record.best_us) == 4


def test_an_interruption_keeps_what_was_found(tmp_path: Path) -> None:
    result = tuned(tmp_path, Pretender(stop_at=4))
    assert result.interrupted and len(result.rows) == 1
    assert len(result.database.read_text().splitlines()) == 1
    assert not tuned(tmp_path).interrupted


@pytest.mark.parametrize(
    ("options", "sizes", "code"),
    [
        ({"target": "cortex-m4", "bind": {"N": 1, "T": 4}}, {}, "wrong-target"),
        ({"target": "cpu"}, {"B": [1]}, "unknown-dimension"),
    ],
)
def test_what_cannot_be_tuned(
    tmp_path: Path, options: dict[str, Any], sizes: dict[str, list[int]], code: str
) -> None:
    plan = Plan(sizes, 2, False, tmp_path)
    with pytest.raises(FewbitsError) as error:
        tune_model(model(), Options(recipe="float", **options), plan)
    assert error.value.code == code


def test_a_tracker_that_does_not_answer(tmp_path: Path) -> None:
    plan = Plan({}, 2, False, tmp_path, ("127.0.0.1", 1, "key"))
    with pytest.raises(FewbitsError) as error:
        tune_model(model(), Options(target="cpu", recipe="float"), plan)
    assert error.value.code == "tracker-unreachable"


def test_this_machine_measures(tmp_path: Path) -> None:
    def open_bench(target: CpuTarget, folder: Path) -> Bench:
        config = evaluator_config(repeat=1, milliseconds=0)
        return local_bench(tvm_target(target), folder, kernel_linker(target), 1, config)

    plan = Plan({"N": [1], "T": [4]}, 2, False, tmp_path / "records")
    options = Options(target="cpu", recipe="float")
    (row,) = tune_model(model(small=True), options, plan, open_bench=open_bench).rows
    assert row.record is not None and not row.failures
    assert row.record.workload in Database(tmp_path / "records").sizes(cpu_of(TARGETS["cpu"]))
    manifest = compiled(tmp_path / "out", tmp_path / "records", small=True).manifest
    assert manifest["tuning"]["tuned"] == 1
    assert manifest["golden"]["difference"] <= manifest["float_match"]


@pytest.fixture
def tracker() -> Iterator[tuple[str, int, str]]:
    """A tracker with one machine, both of them processes here."""
    pytest.importorskip("tornado", reason="TVM's tracker needs tornado")
    from tvm import rpc
    from tvm.rpc.tracker import Tracker

    tracker = Tracker(host="127.0.0.1", port=19190, port_end=19290, silent=True)
    server = None
    try:
        server = rpc.Server(
            host="127.0.0.1", port=19300, port_end=19400, key="desk", silent=True,
            tracker_addr=("127.0.0.1", tracker.port),
        )  # fmt: skip
        session = rpc.connect_tracker("127.0.0.1", tracker.port)
        for _ in range(300):
            if session.summary()["queue_info"].get("desk", {}).get("free"):
                break
            time.sleep(0.1)
        yield ("127.0.0.1", tracker.port, "desk")
    finally:
        if server is not None:
            server.terminate()
        tracker.terminate()


def test_machines_of_a_tracker_measure(tmp_path: Path, tracker: tuple[str, int, str]) -> None:
    plan = Plan({"N": [1], "T": [4]}, 2, False, tmp_path, tracker)
    options = Options(target="cpu", recipe="float")
    (row,) = tune_model(model(small=True), options, plan).rows
    assert row.record is not None and not row.failures
