"""Quantized operators one at a time: the imported module computes what onnxruntime computes."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import onnxruntime
import pytest
import torch
from fewbits.compiler.importer import import_onnx
from fewbits.errors import FewbitsError
from fewbits.ops.evaluate import Evaluator
from onnx import TensorProto, helper, numpy_helper

RNG = np.random.default_rng(7)


def build(operator, inputs, constants, dtype, *, version=21, domain="", outputs=1, **attributes):
    """A model of one node; `inputs` are run-time arrays, `constants` follow (None: left out)."""
    names = list(inputs) + [f"k{i}" if c is not None else "" for i, c in enumerate(constants)]
    node = helper.make_node(
        operator, names, [f"y{i}" for i in range(outputs)], "layer", domain=domain, **attributes
    )
    graph = helper.make_graph(
        [node],
        "one",
        [
            helper.make_tensor_value_info(
                name, helper.np_dtype_to_tensor_dtype(value.dtype), value.shape
            )
            for name, value in inputs.items()
        ],
        [
            helper.make_tensor_value_info(f"y{i}", t, None)
            for i, t in enumerate(np.atleast_1d(dtype))
        ],
        [tensor(c, f"k{i}") for i, c in enumerate(constants) if c is not None],
    )
    opsets = [helper.make_opsetid("", version), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def tensor(value, name):
    return numpy_helper.from_array(np.asarray(value), name)


def ours(model, inputs):
    module = import_onnx(model).module
    results = Evaluator(module)({name: torch.from_numpy(x) for name, x in inputs.items()})
    return [value.numpy() for value in results.values()]


def theirs(model, inputs):
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(model.SerializeToString(), options).run(None, inputs)


def agree(model, inputs, steps=0):
    """Codes differ by at most `steps`; floats by rounding."""
    for mine, expected in zip(ours(model, inputs), theirs(model, inputs), strict=True):
        assert mine.dtype == expected.dtype
        assert mine.shape == expected.shape
        tolerance = steps if expected.dtype.kind in "iu" else 1e-6
        difference = np.abs(mine.astype(np.float64) - expected.astype(np.float64))
        assert difference.max() <= tolerance
        assert expected.max() > expected.min(), "the test would not notice a constant result"


def dtypes(module):
    bindings = [b for block in module["main"].body.blocks for b in block.bindings]
    return {str(b.var.ty.dtype.dtype) for b in bindings}


def floats(*shape, scale=1.0):
    return (RNG.standard_normal(shape) * scale).astype("float32")


def codes(dtype, *shape):
    limits = np.iinfo(dtype)
    return RNG.integers(limits.min, limits.max + 1, shape).astype(dtype)


UINT8, INT8, INT32, FLOAT = (
    TensorProto.UINT8,
    TensorProto.INT8,
    TensorProto.INT32,
    TensorProto.FLOAT,
)
S = np.float32

# -- QuantizeLinear, DequantizeLinear --------------------------------------------------------------


@pytest.mark.parametrize("opset", [10, 13, 19, 21, 23])
@pytest.mark.parametrize("dtype", ["int8", "uint8"])
def test_quantize_per_tensor(opset, dtype):
    x = floats(2, 3, 4, scale=3)
    zero = np.array(3, dtype)
    code = helper.np_dtype_to_tensor_dtype(zero.dtype)
    agree(build("QuantizeLinear", {"x": x}, [S(0.05), zero], code, version=opset), {"x": x})


@pytest.mark.parametrize("dtype", ["int16", "uint16"])
def test_quantize_16_bits(dtype):
    x = floats(2, 3, 4, scale=3)
    zero = np.array(300, dtype)
    code = helper.np_dtype_to_tensor_dtype(zero.dtype)
    agree(build("QuantizeLinear", {"x": x}, [S(0.0005), zero], code), {"x": x})


def test_quantize_rounds_half_to_even_and_saturates():
    x = np.array([0.5, 1.5, 2.5, -0.5, -1.5, 126.5, 127.5, 1e9, -1e9], "float32")
    model = build("QuantizeLinear", {"x": x}, [S(1), np.int8(0)], INT8)
    assert ours(model, {"x": x})[0].tolist() == [0, 2, 2, 0, -2, 126, 127, 127, -128]
    agree(model, {"x": x})


@pytest.mark.parametrize("axis", [0, 1, 2, -1, -2])
@pytest.mark.parametrize("dtype", ["int8", "uint8"])
def test_quantize_and_dequantize_per_axis(axis, dtype):
    x = floats(2, 3, 4, scale=3)
    count = x.shape[axis]
    scale = np.linspace(0.01, 0.1, count).astype("float32")
    zero = codes(dtype, count)
    code = helper.np_dtype_to_tensor_dtype(zero.dtype)
    model = build("QuantizeLinear", {"x": x}, [scale, zero], code, axis=axis)
    agree(model, {"x": x})
    data = codes(dtype, 2, 3, 4)
    model = build("DequantizeLinear", {"x": data}, [scale, zero], FLOAT, axis=axis)
    agree(model, {"x": data})


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int32"])
def test_dequantize_without_zero_point(dtype):
    data = codes(dtype, 5)
    agree(build("DequantizeLinear", {"x": data}, [S(0.5)], FLOAT), {"x": data})


def test_quantize_without_zero_point_is_unsigned():
    x = floats(9, scale=3)
    agree(build("QuantizeLinear", {"x": x}, [S(0.05)], UINT8), {"x": x})
    model = build("QuantizeLinear", {"x": x}, [S(0.05)], INT8, output_dtype=INT8)
    agree(model, {"x": x})


def test_scale_of_one_element_is_per_tensor():
    x = floats(4, 3)
    model = build("QuantizeLinear", {"x": x}, [S([0.05]), np.array([3], "int8")], INT8)
    agree(model, {"x": x})


def weight_model(weights, scale, zero, dtype=None, **attributes):
    """x + DequantizeLinear(weights)."""
    nodes = [
        helper.make_node("DequantizeLinear", ["w", "s", "z"], ["d"], "weight", **attributes),
        helper.make_node("Add", ["x", "d"], ["y"], "sum"),
    ]
    shape = weights.shape
    graph = helper.make_graph(
        nodes,
        "weights",
        [helper.make_tensor_value_info("x", FLOAT, shape)],
        [helper.make_tensor_value_info("y", FLOAT, shape)],
        [tensor(weights, "w"), tensor(scale, "s"), tensor(zero, "z")],
    )
    opsets = [helper.make_opsetid("", 21)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def dequantized_constants(module):
    calls = [b.value for block in module["main"].body.blocks for b in block.bindings]
    return [c.args[0].value.numpy() for c in calls if c.op.name == "relax.dequantize"]


@pytest.mark.parametrize("dtype", ["int4", "uint4"])
def test_few_bit_weights_stay_codes(dtype):
    weights = RNG.integers(0, 8, (4, 6)).astype(getattr(ml_dtypes, dtype))
    scale = np.linspace(0.1, 0.2, 6).astype("float32")
    zero = np.full(6, 3).astype(weights.dtype)
    model = weight_model(weights, scale, zero, axis=1)
    x = floats(4, 6)
    agree(model, {"x": x})
    [constant] = dequantized_constants(import_onnx(model).module)
    assert constant.dtype == "int8"
    assert (constant == weights.astype("int8")).all()


def test_unsigned_weights_are_shifted_exactly():
    weights, zero = codes("uint8", 4, 6), np.uint8(77)
    model = weight_model(weights, S(0.1), zero)
    agree(model, {"x": floats(4, 6)})
    [constant] = dequantized_constants(import_onnx(model).module)
    assert (constant.astype(int) + 128 == weights).all()


def test_blocked_weights_with_negative_scales_become_float():
    weights = RNG.integers(-8, 8, (8, 6)).astype(ml_dtypes.int4)
    scale, zero = -np.abs(floats(2, 6)), np.zeros((2, 6), ml_dtypes.int4)
    model = weight_model(weights, scale, zero, axis=0, block_size=4)
    agree(model, {"x": floats(8, 6)})
    imported = import_onnx(model)
    assert dequantized_constants(imported.module) == []
    assert any("'weight'" in note and "stored as floats" in note for note in imported.notes)


def test_float8_weights_become_float():
    weights = floats(4, 6).astype(ml_dtypes.float8_e4m3fn)
    model = weight_model(weights, S(0.5), np.zeros((), weights.dtype))
    agree(model, {"x": floats(4, 6)})


@pytest.mark.parametrize(
    "case",
    [
        build("QuantizeLinear", {"x": floats(4, 4)}, [floats(2, 4), codes("int8", 2, 4)], INT8,
              axis=0, block_size=2),
        build("QuantizeLinear", {"x": floats(4)}, [S(1)], TensorProto.INT4,
              output_dtype=TensorProto.INT4),
        build("QuantizeLinear", {"x": floats(4)}, [S(1)], TensorProto.FLOAT8E4M3FN,
              output_dtype=TensorProto.FLOAT8E4M3FN),
        build("DequantizeLinear", {"x": codes("int8", 4, 4)}, [floats(2, 4)], FLOAT,
              axis=0, block_size=2),
    ],
)  # fmt: skip
def test_what_has_no_run_time_form_is_refused_at_the_node(case):
    with pytest.raises(FewbitsError) as caught:
        import_onnx(case)
    assert caught.value.code in ("unsupported-form", "unsupported-dtype")
    assert "layer" in str(caught.value.where)


# -- operators on codes ----------------------------------------------------------------------------

ACTIVATIONS = pytest.mark.parametrize("dtype", ["int8", "uint8"])


def quantization(dtype, scale):
    """Scale and zero point for codes of `dtype`."""
    return [S(scale), np.array(np.iinfo(dtype).min + 120, dtype)]


def type_of(dtype):
    return helper.np_dtype_to_tensor_dtype(np.dtype(dtype))


@ACTIVATIONS
@pytest.mark.parametrize("channels", ["tensor", "channel"])
@pytest.mark.parametrize("weight_dtype", ["int8", "uint8"])
def test_qlinear_conv(dtype, channels, weight_dtype):
    if weight_dtype == "uint8" and (channels == "channel" or dtype == "int8"):
        pytest.skip("onnxruntime has no such kernel")
    x, w = codes(dtype, 1, 4, 7, 6), codes(weight_dtype, 6, 2, 3, 3)
    scale = S(0.01) if channels == "tensor" else np.linspace(0.005, 0.02, 6).astype("float32")
    zero = np.zeros_like(scale, weight_dtype) + (weight_dtype == "uint8") * np.uint8(121)
    constants = [
        *quantization(dtype, 0.05), w, scale, zero.astype(weight_dtype),
        *quantization(dtype, 0.3), RNG.integers(-3000, 3000, 6).astype("int32"),
    ]  # fmt: skip
    model = build(
        "QLinearConv", {"x": x}, constants, type_of(dtype),
        group=2, pads=[1, 1, 0, 1], strides=[1, 2],
    )  # fmt: skip
    agree(model, {"x": x}, steps=1)
    assert dtypes(import_onnx(model).module) <= {"int8", "float32", "int32", dtype}


@ACTIVATIONS
def test_qlinear_matmul(dtype):
    a, b = codes(dtype, 2, 5, 8), codes("int8", 8, 6)
    weights = [b, np.linspace(0.005, 0.02, 6).astype("float32"), np.zeros(6, "int8")]
    constants = [*quantization(dtype, 0.05), *weights, *quantization(dtype, 0.1)]
    agree(build("QLinearMatMul", {"a": a}, constants, type_of(dtype)), {"a": a}, steps=1)


@ACTIVATIONS
@pytest.mark.parametrize("operator", ["QLinearAdd", "QLinearMul"])
def test_qlinear_binary(operator, dtype):
    a, b = codes(dtype, 1, 3, 5), codes(dtype, 3, 1)
    out = quantization(dtype, 0.1 if operator == "QLinearAdd" else 0.4)
    constants = [*quantization(dtype, 0.05), b, *quantization(dtype, 0.07), *out]
    model = build(operator, {"a": a}, constants, type_of(dtype), domain="com.microsoft")
    agree(model, {"a": a}, steps=1)


@ACTIVATIONS
@pytest.mark.parametrize(
    ("operator", "scale", "attributes"),
    [
        ("QLinearSigmoid", 1 / 256, {}),
        ("QLinearLeakyRelu", 0.05, {"alpha": 0.2}),
        ("QLinearSoftmax", 1 / 256, {"axis": -1, "opset": 13}),
        ("QLinearSoftmax", 1 / 256, {"axis": 1, "opset": 13}),
        ("QLinearGlobalAveragePool", 0.02, {}),
        ("QLinearAveragePool", 0.03, {"kernel_shape": [2, 3], "strides": [2, 2]}),
        ("QLinearAveragePool", 0.03, {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}),
    ],
)
def test_qlinear_unary(operator, scale, attributes, dtype):
    x = codes(dtype, 1, 3, 6, 5)
    out = quantization(dtype, scale)
    if operator in ("QLinearSigmoid", "QLinearSoftmax"):
        out[1] = np.array(np.iinfo(dtype).min, dtype)
    constants = [*quantization(dtype, 0.04), *out]
    model = build(
        operator, {"x": x}, constants, type_of(dtype), domain="com.microsoft", **attributes
    )
    agree(model, {"x": x}, steps=1)


@ACTIVATIONS
def test_qlinear_pool_channels_last(dtype):
    x = codes(dtype, 1, 6, 5, 3)
    constants = [*quantization(dtype, 0.04), *quantization(dtype, 0.02)]
    model = build(
        "QLinearGlobalAveragePool", {"x": x}, constants, type_of(dtype),
        domain="com.microsoft", channels_last=1,
    )  # fmt: skip
    agree(model, {"x": x}, steps=1)


@ACTIVATIONS
def test_qlinear_where(dtype):
    condition, x, y = RNG.integers(0, 2, (3, 4)) > 0, codes(dtype, 3, 4), codes(dtype, 3, 4)
    constants = [
        x, *quantization(dtype, 0.04), y, *quantization(dtype, 0.05), *quantization(dtype, 0.06)
    ]  # fmt: skip
    model = build(
        "QLinearWhere", {"c": condition}, constants, type_of(dtype), domain="com.microsoft"
    )
    agree(model, {"c": condition}, steps=1)


@ACTIVATIONS
def test_qlinear_concat(dtype):
    x, y = codes(dtype, 2, 3), codes(dtype, 2, 4)
    constants = [*quantization(dtype, 0.06), x, *quantization(dtype, 0.05)]
    inputs = {"y": y}
    model = build("QLinearConcat", {}, constants, type_of(dtype), domain="com.microsoft", axis=1)
    node = model.graph.node[0]
    node.input.extend(["y", "ys", "yz"])
    scale, zero = quantization(dtype, 0.03)
    model.graph.initializer.extend([tensor(scale, "ys"), tensor(zero, "yz")])
    model.graph.input.append(helper.make_tensor_value_info("y", type_of(dtype), y.shape))
    agree(model, inputs, steps=1)


@ACTIVATIONS
@pytest.mark.parametrize("transposed", [0, 1])
@pytest.mark.parametrize("real", [False, True])
def test_qgemm(dtype, transposed, real):
    a, b = codes(dtype, 3, 8), codes("int8", *((6, 8) if transposed else (8, 6)))
    scale = np.linspace(0.005, 0.02, 6).astype("float32")
    constants = [
        *quantization(dtype, 0.05), b, scale, np.zeros(6, "int8"),
        RNG.integers(-3000, 3000, 6).astype("int32"),
    ]  # fmt: skip
    constants += [] if real else quantization(dtype, 0.1)
    kind = FLOAT if real else type_of(dtype)
    model = build("QGemm", {"a": a}, constants, kind, domain="com.microsoft", transB=transposed)
    mine, expected = ours(model, {"a": a})[0], theirs(model, {"a": a})[0]
    assert np.abs(mine.astype(float) - expected).max() <= (1e-4 if real else 1)


def test_fused_conv():
    x = floats(1, 3, 6, 6)
    for activation, parameters in (("Relu", []), ("LeakyRelu", [0.2]), ("Clip", [-0.5, 0.5])):
        model = build(
            "FusedConv", {"x": x}, [floats(4, 3, 3, 3), floats(4)], FLOAT, domain="com.microsoft",
            activation=activation, activation_params=parameters or None, pads=[1, 1, 1, 1],
        )  # fmt: skip
        mine, expected = ours(model, {"x": x})[0], theirs(model, {"x": x})[0]
        np.testing.assert_allclose(mine, expected, atol=1e-5)


# -- integer operators -----------------------------------------------------------------------------


@pytest.mark.parametrize("a_dtype", ["uint8", "int8"])
@pytest.mark.parametrize("b_dtype", ["uint8", "int8"])
@pytest.mark.parametrize("a_zero", [None, "scalar", "row"])
@pytest.mark.parametrize("b_zero", [None, "scalar", "column"])
@pytest.mark.parametrize("constant", [True, False])
def test_matmul_integer(a_dtype, b_dtype, a_zero, b_zero, constant):
    if a_zero == "row" or (a_dtype, b_dtype) == ("int8", "uint8"):
        expected = "reference"
    else:
        expected = "onnxruntime"
    a, b = codes(a_dtype, 4, 9), codes(b_dtype, 9, 5)
    zeros = [
        {None: None, "scalar": np.array(7, a_dtype), "row": codes(a_dtype, 4)}[a_zero],
        {None: None, "scalar": np.array(9, b_dtype), "column": codes(b_dtype, 5)}[b_zero],
    ]
    inputs = {"a": a} if constant else {"a": a, "b": b}
    constants = [b, *zeros] if constant else zeros
    model = build("MatMulInteger", inputs, constants, INT32)
    if expected == "onnxruntime":
        agree(model, inputs)
    wide_a = a.astype(int) - (0 if zeros[0] is None else zeros[0].astype(int).reshape(-1, 1))
    wide_b = b.astype(int) - (0 if zeros[1] is None else zeros[1].astype(int))
    np.testing.assert_array_equal(ours(model, inputs)[0], wide_a @ wide_b)


def test_matmul_integer_stays_an_int8_product():
    a, b = codes("int8", 4, 9), codes("int8", 9, 5)
    module = import_onnx(build("MatMulInteger", {"a": a}, [b], INT32)).module
    [binding] = module["main"].body.blocks[0].bindings
    assert binding.value.op.name == "relax.matmul"
    assert str(binding.value.args[1].ty.dtype.dtype) == "int8"


@pytest.mark.parametrize("w_dtype", ["uint8", "int8"])
@pytest.mark.parametrize("run_time_zero", [False, True])
def test_conv_integer(w_dtype, run_time_zero):
    x, w = codes("uint8", 1, 4, 6, 7), codes(w_dtype, 6, 2, 3, 3)
    zero = np.array(100, "uint8")
    w_zero = np.array(90, w_dtype) if w_dtype == "uint8" else np.array(0, w_dtype)
    model = build(
        "ConvInteger", {"x": x}, [w, zero, w_zero], INT32,
        group=2, pads=[1, 0, 1, 2], strides=[2, 1],
    )  # fmt: skip
    inputs = {"x": x}
    if run_time_zero:
        model.graph.input.append(helper.make_tensor_value_info("k1", UINT8, []))
        kept = [t for t in model.graph.initializer if t.name != "k1"]
        del model.graph.initializer[:]
        model.graph.initializer.extend(kept)
        inputs["k1"] = zero
    agree(model, inputs)


@pytest.mark.parametrize("values", [floats(3, 20), np.abs(floats(3, 20)), -np.abs(floats(3, 20))])
def test_dynamic_quantize_linear(values):
    model = build("DynamicQuantizeLinear", {"x": values}, [], [UINT8, FLOAT, UINT8], outputs=3)
    for mine, expected in zip(
        ours(model, {"x": values}), theirs(model, {"x": values}), strict=True
    ):
        np.testing.assert_array_equal(mine, expected)


def test_dynamic_quantize_linear_of_zeros():
    zeros = np.zeros((2, 2), "float32")
    model = build("DynamicQuantizeLinear", {"x": zeros}, [], [UINT8, FLOAT, UINT8], outputs=3)
    result, _, zero = ours(model, {"x": zeros})
    assert (result == zero).all()
