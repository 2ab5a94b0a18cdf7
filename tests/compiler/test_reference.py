"""The reference beside a product: small, whole, and readable again."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest
from fewbits import FewbitsError
from fewbits.compiler.api import compile as compile_model
from fewbits.compiler.artifact import open_artifact
from fewbits.compiler.evaluation import evaluate_artifact
from fewbits.compiler.reference import read_module
from onnx import TensorProto, helper, numpy_helper

K, UNITS = 256, 128


def dense() -> onnx.ModelProto:
    weight = np.random.default_rng(0).normal(size=(K, UNITS)).astype("float32")
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"], "dense")],
        "dense",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", K])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(weight, "w")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


DATA = {"x": np.random.default_rng(1).normal(size=(6, K)).astype("float32")}


def check(folder):
    """What `fewbits verify` does."""
    return evaluate_artifact(open_artifact(folder), DATA)


def size(folder) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())


@pytest.mark.parametrize("recipe", ["float", "w4-g128"])
def test_weights_are_there_once(tmp_path, recipe):
    compile_model(dense(), tmp_path / "out", target="cpu", recipe=recipe)
    floats = 4 * K * UNITS
    codes = 0 if recipe == "float" else K * UNITS // 2 + 2 * UNITS * K // 128
    assert size(tmp_path / "out" / "reference") < floats + codes + 20_000
    found = check(tmp_path / "out")
    assert found.exact == 6 and (found.snr_db is None or found.snr_db > 15)


def test_without_the_float_model(tmp_path):
    artifact = compile_model(
        dense(), tmp_path / "out", target="cpu", recipe="w4-g128", keep_model=False
    )
    assert size(tmp_path / "out" / "reference") < K * UNITS // 2 + 20_000
    assert not artifact.manifest["model"]["kept"]
    found = check(tmp_path / "out")
    assert found.exact == 6 and found.snr_db is None and found.float_score is None


@pytest.mark.parametrize("keep_model", [True, False])
def test_modules_come_back_bit_by_bit(tmp_path, keep_model):
    import tvm
    from fewbits.compiler.driver import compile as drive
    from fewbits.compiler.options import Options

    options = Options(target="cpu", recipe="w4-g128", to="lower")
    product = drive(dense(), None, options).product
    compile_model(dense(), tmp_path / "out", target="cpu", recipe="w4-g128", keep_model=keep_model)
    tvm.ir.assert_structural_equal(product.module, read_module(tmp_path / "out", "module"))


def cut(path):
    path.write_bytes(path.read_bytes()[:-100])


def other_place(path):
    document = json.loads(path.with_suffix(".json").read_text("utf-8"))
    for node in document["nodes"]:
        if node["type"] == "ffi.Tensor" and isinstance(node["data"], dict):
            node["data"]["offset"] = 10**9
    path.with_suffix(".json").write_text(json.dumps(document), "utf-8")


@pytest.mark.parametrize("damage", [cut, other_place, lambda path: path.unlink()])
def test_damaged(tmp_path, damage):
    compile_model(dense(), tmp_path / "out", target="cpu", recipe="w4-g128")
    damage(tmp_path / "out" / "reference" / "module.bin")
    with pytest.raises(FewbitsError) as caught:
        check(tmp_path / "out")
    assert caught.value.code == "not-an-artifact"
