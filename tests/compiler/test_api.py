"""The same from Python, in three lines."""

from __future__ import annotations

import fewbits
import numpy as np
import onnx
import onnxruntime
import pytest
from fewbits.errors import FewbitsError
from onnx import TensorProto, helper, numpy_helper

RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def model():
    """Two inputs and two outputs with names that Python or C use themselves."""
    nodes = [
        helper.make_node("MatMul", ["self", "w"], ["t"], "dense"),
        helper.make_node("Add", ["t", "int"], ["return"], "sum"),
        helper.make_node("Sigmoid", ["return"], ["a/b"], "sigmoid"),
    ]
    graph = helper.make_graph(
        nodes,
        "two words",
        [
            helper.make_tensor_value_info("self", TensorProto.FLOAT, ("N", 6)),
            helper.make_tensor_value_info("int", TensorProto.FLOAT, ("N", 4)),
        ],
        [
            helper.make_tensor_value_info("return", TensorProto.FLOAT, None),
            helper.make_tensor_value_info("a/b", TensorProto.FLOAT, None),
        ],
        [numpy_helper.from_array(RNG.normal(size=(6, 4)).astype("float32"), "w")],
    )
    opsets = [helper.make_opsetid("", 17)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=9)


@pytest.fixture(scope="module")
def data():
    return {
        "self": RNG.normal(size=(10, 6)).astype("float32"),
        "int": RNG.normal(size=(10, 4)).astype("float32"),
    }


@pytest.fixture(scope="module")
def wanted(model, data):
    session = onnxruntime.InferenceSession(model.SerializeToString())
    return dict(zip(("return", "a/b"), session.run(None, data), strict=True))


@pytest.mark.parametrize("target", ["c", "cortex-m3"])
def test_three_lines(model, data, wanted, tmp_path, target):
    artifact = fewbits.compile(model, tmp_path / "out", target=target, calibration=data)
    run = fewbits.load(tmp_path / "out")
    outputs = run(**data)
    assert artifact.manifest["model"]["name"] == "two words"
    assert artifact.manifest["function"] == "two_words_run"
    assert list(outputs) == ["return", "a/b"]
    for name, want in wanted.items():
        assert outputs[name].shape == want.shape and outputs[name].dtype == np.float32
        assert np.abs(outputs[name] - want).max() < 0.05 * np.abs(want).max()
    assert len(run.instructions) == (0 if target == "c" else 10)
    codes = run(raw=True, **{p.name: p.to_codes(data[p.name]) for p in artifact.inputs})
    for port in artifact.outputs:
        np.testing.assert_array_equal(port.to_real(codes[port.name]), outputs[port.name])
    single = run(**{name: array[:1] for name, array in data.items()})
    np.testing.assert_array_equal(single["return"], outputs["return"][:1])


def test_quantize_gives_onnx(model, data, wanted):
    quantized = fewbits.quantize(model, calibration=data)
    onnx.checker.check_model(quantized)
    session = onnxruntime.InferenceSession(quantized.SerializeToString())
    one = {name: array[:1] for name, array in data.items()}
    got = session.run(None, one)[0]
    assert np.abs(got - wanted["return"][:1]).max() < 0.05 * np.abs(wanted["return"]).max()


def test_misspelt_option(model, tmp_path):
    with pytest.raises(FewbitsError) as caught:
        fewbits.compile(model, tmp_path / "out", taget="c")
    assert caught.value.code == "unknown-option" and "'target'" in (caught.value.hint or "")
    assert not (tmp_path / "out").exists()


def test_unfinished_compilations_are_not_artifacts(model, data, tmp_path):
    with pytest.raises(FewbitsError):
        fewbits.compile(model, tmp_path / "out", calibration=data, to="lower")
    assert not (tmp_path / "out").exists()


def test_wrong_inputs(model, data, tmp_path):
    fewbits.compile(model, tmp_path / "out", target="c", calibration=data, golden=0)
    run = fewbits.load(tmp_path / "out")
    for inputs, code in (
        ({"self": data["self"]}, "missing-input"),
        ({**data, "x": data["int"]}, "unknown-input"),
        ({**data, "int": data["self"]}, "wrong-shape"),
    ):
        with pytest.raises(FewbitsError) as caught:
            run(**inputs)
        assert caught.value.code == code
    with pytest.raises(FewbitsError):
        fewbits.load(tmp_path)
