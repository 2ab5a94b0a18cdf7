"""QDQ form: who shares scales, what stays float, how weights and biases are kept."""

from __future__ import annotations

import numpy as np
import pytest
from fewbits.compiler.importer import import_onnx
from fewbits.errors import FewbitsError
from fewbits.passes.base import PassContext, make_pass, parse_pass
from fewbits.passes.calibration import Calibration
from fewbits.passes.canonicalize import canonicalize
from fewbits.passes.quantize.plan import make_plan
from fewbits.passes.quantize.quantize import Quantize
from fewbits.passes.rewrite import Rewriter, as_array, operator_of
from onnx import TensorProto, helper, numpy_helper

RNG = np.random.default_rng(5)
WEIGHT = RNG.normal(size=(4, 3, 3, 3)).astype("float32")


def module_of(nodes, constants, shape=(1, 3, 6, 6)):
    graph = helper.make_graph(
        [helper.make_node(k, i.split(), o.split(), o, **a) for k, i, o, a in nodes],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(nodes[-1][2], TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()],
    )
    opsets = [helper.make_opsetid("", 17)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=9)
    return canonicalize(import_onnx(model).module)


def context(values):
    return PassContext(calibration=Calibration(lambda: [{"x": values}], "test"))


def samples(*shape):
    return RNG.normal(size=shape).astype("float32")


CONV = [("Conv", "x w b", "c", {"pads": [1, 1, 1, 1]}), ("Relu", "c", "r", {})]
PARAMETERS = {"w": WEIGHT, "b": np.array([1, -1, 0.5, 0], "float32")}


def parameters(module):
    """(scale, zero point) of every quantized value."""
    return {
        var.name.removesuffix(":q"): (
            float(as_array(v.args[1]).item()),
            int(as_array(v.args[2]).item()),
        )
        for var, v in Rewriter(module).bindings
        if operator_of(v) == "relax.quantize"
    }


def test_convolution_bias_and_relu_are_one_layer():
    plan = make_plan(module_of(CONV, PARAMETERS), ())
    assert plan.quantized == ["x", "r"]
    assert list(plan.anchors.values()) == ["r"]


@pytest.mark.parametrize("strategy", ["channel", "tensor"])
def test_weights_and_biases(strategy):
    module = module_of(CONV, PARAMETERS)
    qdq = Quantize(strategy=strategy).apply(module, context(samples(8, 3, 6, 6)))
    dequantized = [
        v for _, v in Rewriter(qdq).bindings
        if operator_of(v) == "relax.dequantize" and hasattr(v.args[0], "value")
    ]  # fmt: skip
    weight, bias = dequantized
    codes, scale = as_array(weight.args[0]), as_array(weight.args[1])
    assert codes.dtype == np.int8 and np.abs(codes).max() == 127
    assert scale.shape == (4,) and (len(set(scale)) == 1) == (strategy == "tensor")
    np.testing.assert_allclose(codes * scale[:, None, None, None], WEIGHT, atol=scale.max() * 0.501)
    input_scale = parameters(qdq)["x"][0]
    np.testing.assert_allclose(as_array(bias.args[1]), scale * input_scale, rtol=1e-6)
    assert as_array(bias.args[0]).dtype == np.int32
    real = as_array(bias.args[0]).ravel() * as_array(bias.args[1])
    np.testing.assert_allclose(real, PARAMETERS["b"], atol=as_array(bias.args[1]).max())


def test_movers_and_concat_share_parameters():
    nodes = [
        *CONV,
        ("MaxPool", "r", "m", {"kernel_shape": [2, 2], "strides": [2, 2]}),
        ("Transpose", "m", "t", {"perm": [0, 1, 3, 2]}),
        ("Concat", "m t", "k", {"axis": 1}),
        ("GlobalAveragePool", "k", "y", {}),
    ]
    found = parameters(Quantize().apply(module_of(nodes, PARAMETERS), context(samples(8, 3, 6, 6))))
    assert found["r"] == found["m"] == found["t"] == found["k"]
    assert found["y"] != found["r"] and found["x"] != found["r"]


def test_fixed_ranges_need_no_data():
    qdq = Quantize().apply(
        module_of([*CONV, ("Softmax", "r", "s", {"axis": 1})], PARAMETERS),
        context(samples(8, 3, 6, 6)),
    )
    assert parameters(qdq)["s"] == (1 / 256, -128)


@pytest.mark.parametrize("pattern", ["c", "C*", "re:[cd]", "conv2d", "relax.nn.conv2d"])
def test_ignored_layers_stay_float(pattern):
    nodes = [*CONV, ("GlobalAveragePool", "r", "p", {}), ("Sigmoid", "p", "y", {})]
    module = module_of(nodes, PARAMETERS)
    if pattern == "C*":
        pattern = "c*"
    plan = make_plan(module, (pattern,))
    assert set(plan.floats.values()) == {"kept float as asked"}
    assert not plan.anchors and "y" in plan.quantized
    ctx = context(samples(8, 3, 6, 6))
    qdq = Quantize(ignore=(pattern,)).apply(module, ctx)
    used = [v for _, v in Rewriter(qdq).bindings if operator_of(v) == "relax.nn.conv2d"]
    assert hasattr(used[0].args[1], "value"), "the weights stayed float"
    assert any("as asked" in note.message for note in ctx.notes)


def test_a_layer_that_does_not_exist():
    with pytest.raises(FewbitsError) as caught:
        make_plan(module_of(CONV, PARAMETERS), ("conw2d",))
    assert caught.value.code == "unknown-layer"


def test_vanishing_channels_get_scales_that_can_be_multiplied():
    weight = WEIGHT * np.array([1, 1e-20, 1e-6, 0], "float32").reshape(-1, 1, 1, 1)
    module = module_of(CONV, {"w": weight, "b": PARAMETERS["b"]})
    qdq = Quantize().apply(module, context(samples(8, 3, 6, 6)))
    (scale,) = (
        as_array(v.args[1]) for _, v in Rewriter(qdq).bindings
        if operator_of(v) == "relax.dequantize" and hasattr(v.args[0], "value")
        and as_array(v.args[0]).dtype == np.int8
    )  # fmt: skip
    found = parameters(qdq)
    assert (scale * found["x"][0] / found["r"][0] >= 2.0**-22 * 0.999).all()


def test_no_data():
    with pytest.raises(FewbitsError) as caught:
        Quantize().apply(module_of(CONV, PARAMETERS), PassContext())
    assert caught.value.code == "no-calibration"


def test_values_that_overflow():
    module = module_of([("Exp", "x", "e", {}), ("Relu", "e", "y", {})], {})
    with pytest.raises(FewbitsError) as caught:
        Quantize().apply(module, context(np.full((2, 3, 6, 6), 1e4, "float32")))
    assert caught.value.code == "not-finite"


def test_chunks_do_not_change_the_result():
    module, values = module_of(CONV, PARAMETERS), samples(50, 3, 6, 6)
    found = []
    for chunk, pieces in ((32, 1), (7, 1), (32, 9)):
        batches = [{"x": piece} for piece in np.array_split(values, pieces)]
        calibration = Calibration(lambda batches=batches: batches, "test", chunk=chunk)
        qdq = Quantize().apply(module, PassContext(calibration=calibration))
        found.append(parameters(qdq))
    assert found[0].keys() == found[1].keys() == found[2].keys()
    for name, (scale, zero_point) in found[0].items():
        for other in found[1:]:
            assert other[name] == (pytest.approx(scale, rel=1e-5), zero_point)


def test_a_quantized_model_keeps_its_scales():
    ctx = context(samples(8, 3, 6, 6))
    qdq = Quantize().apply(module_of(CONV, PARAMETERS), ctx)
    assert Quantize().apply(qdq, ctx) is qdq
    assert "own scales" in ctx.notes[-1].message
    with pytest.raises(FewbitsError):
        Quantize(ignore=("c",)).apply(qdq, ctx)


# -- passes as text ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "pass_",
    [
        Quantize(),
        Quantize(strategy="tensor", percentile=99.5, symmetric=True),
        Quantize(ignore=("a b", "re:x{2};=", 'quo"te', "ü\nline", "[x]", "1", "null")),
    ],
)
def test_text_form_round_trips(pass_):
    assert parse_pass(str(pass_)) == pass_
    assert make_pass(pass_.name, pass_.options()) == pass_
