"""The whole of it on real networks: less to compute, the same result as onnxruntime."""

import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from fewbits.compiler.importer import import_onnx
from fewbits.ops.evaluate import Evaluator
from fewbits.passes.base import parse_pass
from fewbits.passes.canonicalize import Canonicalize, canonicalize
from fewbits.passes.macs import macs

SHARED = Path(__file__).resolve().parents[4] / "shared"


@pytest.fixture(scope="module")
def real():
    if not (SHARED / "realdata.py").exists():
        pytest.skip("the real models and data are not here")
    sys.path.insert(0, str(SHARED))
    import realdata

    return realdata.load


@pytest.mark.parametrize(
    ("name", "work"),
    [("kws", 2_656_768), ("resnet8", 12_501_632), ("ad", 264_192), ("vww", 3_742_091)],
)
def test_real_models_compute_the_same(name, work, real):
    task = real(name)
    inputs = {key: array[:16] for key, array in task.inputs.items()}
    module = canonicalize(import_onnx(task.model).module)
    assert sum(macs(module).values()) == work
    session = onnxruntime.InferenceSession(str(task.model))
    expected = session.run(None, inputs)[0]
    found = next(iter(next(iter(Evaluator(module).batched(inputs))).values())).numpy()
    error = np.abs(found.reshape(expected.shape) - expected).max()
    assert error < 1e-5 * np.abs(expected).max()


MODEL = """
<ir_version: 8, opset_import: ["" : 13]>
exported (float[1,8,6,3] x) => (float[1,4] y)
<float[5,3,3,3] w, float[5] gamma, float[5] beta, float[5] mean, float[5] var, int64[2] flat,
 float[240,4] dense, float three = {3.0}, float zero = {0.0}, float six = {6.0}>
{
  first = Transpose <perm = [0, 3, 1, 2]> (x)
  conv = Conv <pads = [1, 1, 1, 1]> (first, w)
  normal = BatchNormalization (conv, gamma, beta, mean, var)
  last = Transpose <perm = [0, 2, 3, 1]> (normal)
  plus = Add (last, three)
  gate = Clip (plus, zero, six)
  gated = Mul (last, gate)
  scaled = Div (gated, six)
  same = Identity (scaled)
  back = Transpose <perm = [0, 3, 1, 2]> (same)
  relu = Relu (back)
  again = Transpose <perm = [0, 2, 3, 1]> (relu)
  columns = Reshape (again, flat)
  y = MatMul (columns, dense)
}
"""


@pytest.fixture
def exported():
    model = onnx.parser.parse_model(MODEL)
    rng = np.random.default_rng(0)
    shapes = {"w": (5, 3, 3, 3), "gamma": 5, "beta": 5, "mean": 5, "dense": (240, 4)}
    arrays = {name: rng.normal(size=shape) for name, shape in shapes.items()}
    arrays["var"] = rng.uniform(0.5, 2, 5)
    kept = [tensor for tensor in model.graph.initializer if tensor.raw_data or tensor.float_data]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    for name, array in arrays.items():
        model.graph.initializer.append(onnx.numpy_helper.from_array(array.astype(np.float32), name))
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array([1, 240]), "flat"))
    return model


def test_a_channels_last_export(exported, operators):
    x = np.random.default_rng(1).normal(size=(1, 8, 6, 3)).astype(np.float32)
    session = onnxruntime.InferenceSession(exported.SerializeToString())
    (expected,) = session.run(None, {"x": x})
    module = canonicalize(import_onnx(exported).module)
    names = operators(module)
    assert names[:3] == ["permute_dims", "nn.conv2d", "add"]
    assert names.count("permute_dims") == 1
    assert "nn.batch_norm" not in names
    found = next(iter(Evaluator(module).batched({"x": x})))["y"].numpy()
    np.testing.assert_allclose(found[0], expected, rtol=1e-4, atol=1e-4)
    assert canonicalize(module) is module


def test_the_interface_stays(build):
    module = build(lambda steps, x, y: steps(x, "same"), x=(2,), y=(3,))
    after = canonicalize(module)
    assert [parameter.name for parameter in after["main"].params] == ["x", "y"]
    assert list(after["main"].attrs["output_names"]) == ["output 0"]


def test_its_text_form_round_trips():
    assert parse_pass(str(Canonicalize())) == Canonicalize()
    assert str(parse_pass("fold-constants{limit=10}")) == "fold-constants{limit=10}"
