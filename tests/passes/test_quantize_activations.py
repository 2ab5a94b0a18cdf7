"""Activations are rounded where products read them, once, with the scales that were asked for."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from fewbits.compiler.importer import import_onnx
from fewbits.errors import FewbitsError
from fewbits.formats.compress import compress
from fewbits.formats.granularity import PerChannel
from fewbits.formats.parse import parse_format
from fewbits.ops.evaluate import Evaluator
from fewbits.passes.base import PassContext, parse_pass
from fewbits.passes.calibration import Calibration
from fewbits.passes.canonicalize import canonicalize
from fewbits.passes.layers import Replacement, replace_layers
from fewbits.passes.quantize_activations import QuantizeActivations
from fewbits.passes.rewrite import Rewriter, operator_of
from onnx import numpy_helper, parser

ATTENTION = """
<ir_version: 8, opset_import: ["" : 17]>
g (float[1,6,8] x) => (float[1,6,8] y)
<float[8,8] wq, float[8,8] wk, float[8,8] wv, float[8,8] wo>
{
  q = MatMul(x, wq)
  k = MatMul(x, wk)
  v = MatMul(x, wv)
  t = Transpose<perm=[0,2,1]>(k)
  s = MatMul(q, t)
  p = Softmax<axis=-1>(s)
  c = MatMul(p, v)
  y = MatMul(c, wo)
}
"""
CONVOLUTION = """
<ir_version: 8, opset_import: ["" : 17]>
g (float[1,3,6,6] x) => (float[1,4,4,4] y)
<float[4,3,3,3] w>
{
  y = Conv(x, w)
}
"""


def module_of(text: str) -> Any:
    model = parser.parse_model(text)
    rng = np.random.default_rng(0)
    for value in list(model.graph.value_info):
        shape = [d.dim_value for d in value.type.tensor_type.shape.dim]
        array = (rng.normal(size=shape) / 2).astype(np.float32)
        model.graph.initializer.append(numpy_helper.from_array(array, value.name))
    del model.graph.value_info[:]
    return canonicalize(import_onnx(model).module)


def data_of(module: Any, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    shape = [int(extent) for extent in module["main"].params[0].ty.shape.values]
    return {"x": rng.normal(size=(4, *shape[1:])).astype(np.float32)}


def context_of(module: Any) -> PassContext:
    data = data_of(module)
    return PassContext(calibration=Calibration(lambda: iter([data]), "test", 4))


def calls(module: Any) -> list[Any]:
    return [v for _, v in Rewriter(module).bindings if operator_of(v) == "fewbits.fake_quantize"]


def value_of(module: Any, name: str, data: dict[str, np.ndarray]) -> np.ndarray:
    [values] = Evaluator(module).batched(data, [name])
    return values[name].numpy().reshape(len(data["x"]), *values[name].shape[2:])


def rounded(x: np.ndarray, scale: Any) -> np.ndarray:
    return np.clip(np.rint(x / np.float32(scale)), -127, 127) * np.float32(scale)


def test_readers_of_one_value_share_its_rounding_per_token() -> None:
    module = module_of(ATTENTION)
    after = QuantizeActivations().apply(module, PassContext())
    assert len(calls(after)) == 2  # x, and what the last layer reads
    data = data_of(module)
    weight = next(v.args[1] for var, v in Rewriter(module).bindings if var.name == "q")
    scale = np.abs(data["x"]).max(-1, keepdims=True) / 127
    expected = rounded(data["x"], scale) @ weight.value.numpy()
    np.testing.assert_allclose(value_of(after, "q", data), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("observer", "statistic"),
    [("minmax", np.max), ("percentile", lambda x: np.quantile(x, 0.9))],
)
def test_static_scales_come_from_calibration(observer: str, statistic: Any) -> None:
    module = module_of(ATTENTION)
    options = QuantizeActivations(
        strategy="tensor", dynamic=False, observer=observer, percentile=95.0
    )
    after = options.apply(module, context_of(module))
    found = [float(call.args[1].value.numpy()) for call in calls(after)]
    inputs = [value_of(module, name, data_of(module)) for name in ("c",)]
    expected = [statistic(np.abs(x)) / 127 for x in (data_of(module)["x"], *inputs)]
    np.testing.assert_allclose(found, expected, rtol=1e-6 if observer == "minmax" else 0.15)


def test_products_are_rounded_along_what_they_do_not_sum() -> None:
    module = module_of(ATTENTION)
    after = QuantizeActivations(products=True).apply(module, PassContext())
    kinds = {
        str(call.args[0].name): str(call.attrs["granularity"])
        for call in calls(after)
        if call.args[0].name in ("q", "k", "p", "v")
    }
    assert kinds == {"q": "token", "k": "token", "p": "token", "v": "tensor"}
    data = data_of(module)
    exact, few = value_of(module, "y", data), value_of(after, "y", data)
    assert 0 < np.abs(few - exact).max() < 0.05 * np.abs(exact).max()
    kept = QuantizeActivations(products=True, ignore=("c",)).apply(module, PassContext())
    assert "p" not in {str(call.args[0].name) for call in calls(kept)}


def test_order_with_weights_does_not_matter() -> None:
    module = module_of(ATTENTION)

    def weights(given: Any) -> Any:
        number_format = parse_format("int8-narrow")
        return replace_layers(
            given,
            lambda layer: Replacement(
                compress(layer.weight, number_format, granularity=PerChannel(0))
            ),
        )

    quantize, context = QuantizeActivations(), PassContext()
    one = weights(quantize.apply(module, context))
    other = quantize.apply(weights(module), context)
    data = data_of(module)
    np.testing.assert_array_equal(value_of(one, "y", data), value_of(other, "y", data))
    assert len(calls(quantize.apply(other, context))) == len(calls(other))


def test_a_convolution_gets_one_scale() -> None:
    module, context = module_of(CONVOLUTION), PassContext()
    after = QuantizeActivations().apply(module, context)
    assert [str(call.attrs["granularity"]) for call in calls(after)] == ["tensor"]
    assert [note.layer for note in context.notes] == ["y"]


def test_overrides_change_some_layers() -> None:
    module = module_of(ATTENTION)
    quantize = QuantizeActivations(overrides={"y": {"format": "fp8_e4m3fn"}}, ignore=("k",))
    assert parse_pass(str(quantize)) == quantize
    after = quantize.apply(module, PassContext())
    assert [str(call.attrs["format"]) for call in calls(after)] == ["int8-narrow", "fp8_e4m3fn"]
    plain = [v for var, v in Rewriter(after).bindings if var.name == "k"]
    assert plain[0].args[0] == after["main"].params[0]


def test_fp8_rounds_to_its_levels() -> None:
    module = module_of(ATTENTION)
    after = QuantizeActivations(format="fp8_e4m3fn").apply(module, PassContext())
    name = calls(after)[0]
    var = next(var for var, value in Rewriter(after).bindings if value == name)
    data = data_of(module)
    scale = np.abs(data["x"]).max(-1, keepdims=True) / np.float32(448)
    expected = parse_format("fp8_e4m3fn").round(data["x"] / scale) * scale
    found = value_of(after, str(var.name), data)
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("quantize_activations{dynamic=false}", "run time"),
        ("quantize_activations{dynamic=false; strategy=tensor}", "sample inputs"),
        ("quantize_activations{format=uint8}", "negative"),
        ("quantize_activations{format=int99}", "int"),
        ("quantize_activations{observer=none}", "observer"),
        ("quantize_activations{format=fp8_e4m3fn; observer=mse}", "integers"),
        ("quantize_activations{targets=[none]}", "matches no layer"),
        ("quantize_activations{overrides={y: {bits: 3}}}", "bits"),
        ("quantize_activations{overrides={y: {dynamic: maybe}}}", "dynamic"),
    ],
)
def test_what_cannot_be_is_refused(text: str, message: str) -> None:
    with pytest.raises(FewbitsError, match=message):
        parse_pass(text).apply(module_of(ATTENTION), PassContext())
