"""Tuning for GPUs from a model to its library: candidates, measurements, records, their use.

The GPU is the emulated one, whose times mean nothing: what wins is chance, that it is used is not.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import platformdirs
import pytest
from fewbits import FewbitsError
from fewbits.compiler import driver
from fewbits.compiler.artifact import Artifact
from fewbits.compiler.cuda_tuning import build_plan, measure_plan, merge_records, tune_cuda
from fewbits.compiler.options import Options
from fewbits.compiler.tuning import Plan
from fewbits.schedules.cuda.tuning.measuring.plan import load
from fewbits.schedules.cuda.tuning.records import EMULATED, Store
from fewbits.targets.cuda import testing
from fewbits.targets.cuda.driver import VARIABLE
from onnx import TensorProto, helper, numpy_helper

CARD = f"{EMULATED} sm_80"


def model() -> onnx.ModelProto:
    """[N, 64] through two layers of one shape, and one of another."""
    random = np.random.default_rng(0)
    sizes = {"w1": (64, 64), "w2": (64, 64), "w3": (64, 48)}
    weights = {name: random.normal(size=size).astype("float32") for name, size in sizes.items()}
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "w1"], ["a"], "first"),
            helper.make_node("Relu", ["a"], ["b"], "r1"),
            helper.make_node("MatMul", ["b", "w2"], ["c"], "second"),
            helper.make_node("Relu", ["c"], ["d"], "r2"),
            helper.make_node("MatMul", ["d", "w3"], ["y"], "third"),
        ],
        "layers",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 64])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


@pytest.fixture(autouse=True)
def _emulated(monkeypatch: pytest.MonkeyPatch) -> None:
    reason = testing.no_compiler()
    if reason is not None:
        pytest.skip(reason)
    monkeypatch.setenv(VARIABLE, "emulator:sm_80")
    # What nvcc and zig made is kept from run to run.
    monkeypatch.setenv("FEWBITS_CACHE", platformdirs.user_cache_dir("fewbits-tests"))
    testing.open_gpu("sm_80")


def options(tuning: Path | None = None) -> Options:
    return Options(target="cuda-sm80", recipe="w8a8-smooth", tuning=tuning)


def test_from_candidates_to_a_library_that_uses_the_fastest(tmp_path: Path) -> None:
    folder, records = tmp_path / "plan", tmp_path / "records"
    plan = Plan({"N": [3]}, 2, False, records)
    built = build_plan(model(), options(), plan, folder, "random")
    assert (built.cases, built.kernels, built.failures, built.untuned) == (2, 4, {}, ())
    cases = load(folder).cases
    assert [(case.layers, case.rows, case.bucket) for case in cases] == [
        (("first", "second"), 3, 4),
        (("third",), 3, 4),
    ]
    assert (folder / "measuring" / "__main__.py").is_file()

    result = measure_plan(folder, records)
    assert (result.card, result.total, result.interrupted) == (CARD, 2, False)
    assert all(row.record is not None and not row.failures for row in result.rows)
    again = measure_plan(folder, records)
    assert all(row.known for row in again.rows)

    # What wins is made sure to be the candidate that compilations would not use by themselves.
    kept, _ = Store(records).read("sm_80")
    lines = []
    for one, case in zip(kept, cases, strict=True):
        other = case.candidates[1]
        won = one.model_copy(update={"template": other.template, "sizes": dict(other.sizes)})
        lines.append(won.line())
    file = tmp_path / "elsewhere.jsonl"
    file.write_text("\n".join([*lines, "nonsense"]))
    assert merge_records(file, records) == (2, 1)

    artifact = driver.compile(model(), tmp_path / "out", options(records), "random")
    assert isinstance(artifact, Artifact)
    manifest = artifact.manifest
    assert manifest["tuning"] == {"kernels": 2, "tuned": 2, "ignored_lines": 0}
    assert all("(tuned)" in layer["kernel"] for layer in manifest["layers"])
    assert manifest["golden"]["difference"] <= manifest["float_match"]
    report = (artifact.folder / "report.html").read_text("utf-8")
    assert "2 of 2 kernels are the fastest" in report


def test_what_is_known_is_not_built_again(tmp_path: Path) -> None:
    records = tmp_path / "records"
    plan = Plan({"N": [1]}, 1, False, records)
    built, result = tune_cuda(model(), options(), plan, "random")
    assert built.cases == len(result.rows) == 2
    assert not built.folder.exists()
    built, result = tune_cuda(model(), options(), plan, "random")
    assert built.cases == built.kernels == len(result.rows) == 0
    (line, _) = Store(records).path("sm_80").read_text().splitlines()
    assert json.loads(line)["card"] == CARD


def test_what_cannot_be_done(tmp_path: Path) -> None:
    plan = Plan({}, 2, False, tmp_path)
    for call, code in (
        (lambda: measure_plan(tmp_path / "nothing", tmp_path), "bad-plan"),
        (lambda: merge_records(tmp_path / "nothing", tmp_path), "no-such-file"),
        (
            lambda: build_plan(model(), Options(target="cpu", recipe="float"), plan, tmp_path),
            "wrong-target",
        ),
        (
            lambda: build_plan(
                model(), options(), Plan({"B": [1]}, 2, False, tmp_path), tmp_path, "random"
            ),
            "unknown-dimension",
        ),
    ):
        with pytest.raises(FewbitsError) as error:
            call()
        assert error.value.code == code
