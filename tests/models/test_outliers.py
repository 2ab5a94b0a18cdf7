"""Injected outlier columns: the model computes the same, and its activations have outliers."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper, parser

ROOT = Path(__file__).resolve().parents[2]

#: A post-norm block, a Gemm with transposed weights, and a norm that is an output itself.
MODEL = """
<ir_version: 8, opset_import: ["" : 17]>
g (float[5,16] x) => (float[5,16] y, float[5,4] z, float[5,16] n)
<float[16] g1, float[16] b1, float[16] g2, float[16,16] w, float[4,16] wz>
{
  m = LayerNormalization<axis=-1>(x, g1, b1)
  h = MatMul(m, w)
  r = Add(h, m)
  n = Mul(r, g2)
  z = Gemm<transB=1>(n, wz)
  y = Add(r, n)
}
"""


@pytest.fixture
def outliers(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "models"))
    import outliers

    return outliers


def model_of() -> onnx.ModelProto:
    model = parser.parse_model(MODEL)
    rng = np.random.default_rng(0)
    for value in list(model.graph.value_info):
        shape = [d.dim_value for d in value.type.tensor_type.shape.dim]
        array = rng.normal(size=shape).astype(np.float32)
        model.graph.initializer.append(numpy_helper.from_array(array, value.name))
    del model.graph.value_info[:]
    return model


def run(model: onnx.ModelProto, *also: str) -> list[np.ndarray]:
    model = onnx.ModelProto.FromString(model.SerializeToString())
    for name in also:
        model.graph.output.append(onnx.helper.make_tensor_value_info(name, 1, None))
    session = onnxruntime.InferenceSession(model.SerializeToString())
    x = np.random.default_rng(1).normal(size=(5, 16)).astype(np.float32)
    return session.run(None, {"x": x})  # pyright: ignore[reportReturnType]


def test_the_function_stays_and_the_columns_are_raised(outliers: ModuleType) -> None:
    model = model_of()
    hard, changed = outliers.inject_outliers(model, columns=3, magnitude=50.0)
    assert changed == 2
    onnx.checker.check_model(hard, full_check=True)
    for before, after in zip(run(model), run(hard), strict=True):
        np.testing.assert_allclose(after, before, rtol=1e-4, atol=1e-4)
    *_, plain = run(model, "m")
    *_, raised = run(hard, "m")
    ratio = np.abs(raised).max(0) / np.abs(plain).max(0)
    np.testing.assert_allclose(np.sort(ratio), [1.0] * 13 + [50.0] * 3, rtol=1e-5)


def test_models_without_a_place_for_outliers_are_refused(outliers: ModuleType) -> None:
    model = model_of()
    with pytest.raises(ValueError, match="only 16 columns"):
        outliers.inject_outliers(model, columns=17)
    del model.graph.node[:]
    with pytest.raises(ValueError, match="no normalization"):
        outliers.inject_outliers(model)
