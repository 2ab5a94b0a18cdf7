"""Quantize and dequantize equal onnxruntime to the bit."""

import numpy as np
import onnxruntime
import pytest
import torch
from fewbits.ops import meanings  # noqa: F401  (registers them)
from fewbits.ops.registry import meaning_of
from onnx import TensorProto, helper, numpy_helper
from tvm import relax

VALUES = np.concatenate(
    [
        np.arange(-700, 700) * np.float32(0.5) * np.float32(0.1),
        np.random.default_rng(0).normal(scale=40, size=5000),
        [3.4e38, -3.4e38, np.inf, -np.inf, 0.0, -0.0],
    ]
).astype(np.float32)


def onnxruntime_run(kind, data, scale, zero, axis):
    node = helper.make_node(kind, ["x", "s", "z"], ["y"], axis=axis)
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info("x", helper.np_dtype_to_tensor_dtype(data.dtype), None)],
        [helper.make_tensor_value_info("y", TensorProto.UNDEFINED, None)],
        [numpy_helper.from_array(scale, "s"), numpy_helper.from_array(zero, "z")],
    )
    if kind == "QuantizeLinear":
        graph.output[0].type.tensor_type.elem_type = helper.np_dtype_to_tensor_dtype(zero.dtype)
    else:
        graph.output[0].type.tensor_type.elem_type = TensorProto.FLOAT
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    return session.run(None, {"x": data})[0]


def ours(kind, data, scale, zero, axis):
    arguments = [relax.const(array, str(array.dtype)) for array in (data, scale, zero)]
    build = relax.op.quantize if kind == "QuantizeLinear" else relax.op.dequantize
    out = str(zero.dtype) if kind == "QuantizeLinear" else "float32"
    call = relax.BlockBuilder().normalize(build(*arguments, axis, out))
    tensors = [torch.from_numpy(np.asarray(array)) for array in (data, scale, zero)]
    return meaning_of(call.op.name)(call, *tensors).numpy()


@pytest.mark.parametrize(
    ("kind", "zero"), [("int8", -7), ("uint8", 200), ("int16", 5000), ("uint16", 40000)]
)
@pytest.mark.parametrize("scale", [0.1, 0.037, 1.0, 1e-3])
def test_quantize_per_tensor(kind, zero, scale):
    arguments = (VALUES, np.array(scale, np.float32), np.array(zero, kind), 0)
    expected = onnxruntime_run("QuantizeLinear", *arguments)
    np.testing.assert_array_equal(ours("QuantizeLinear", *arguments), expected)


@pytest.mark.parametrize("kind", ["int8", "uint8", "int16", "uint16"])
def test_per_axis_both_ways(kind):
    data = VALUES[:600].reshape(3, 4, 50)
    scale = np.array([0.1, 0.02, 1.5, 0.3], np.float32)
    low = 0 if kind.startswith("u") else -3
    zero = np.array([low, 1, 100, 17], kind)
    expected = onnxruntime_run("QuantizeLinear", data, scale, zero, 1)
    codes = ours("QuantizeLinear", data, scale, zero, 1)
    np.testing.assert_array_equal(codes, expected)
    back = ours("DequantizeLinear", codes, scale, zero, 1)
    np.testing.assert_array_equal(back, onnxruntime_run("DequantizeLinear", codes, scale, zero, 1))


def test_dequantize_int32_bias():
    data = np.array([2**31 - 1, -(2**31), 2**24 + 1, 7], np.int32)
    arguments = (data, np.array(0.0123, np.float32), np.array(0, np.int32), 0)
    expected = onnxruntime_run("DequantizeLinear", *arguments)
    np.testing.assert_array_equal(ours("DequantizeLinear", *arguments), expected)


def test_quantize_to_fp8_saturates():
    data = torch.tensor([1.0, 500.0, -1e9, 0.0078125, 17.0])
    call = relax.BlockBuilder().normalize(
        relax.op.quantize(
            relax.const(data.numpy(), "float32"),
            relax.const(1.0, "float32"),
            relax.const(0.0, "float16"),
            0,
            "float8_e4m3fn",
        )
    )
    codes = meaning_of("relax.quantize")(call, data, torch.tensor(1.0), torch.tensor(0.0))
    assert codes.dtype == torch.float8_e4m3fn
    assert codes.to(torch.float32).tolist() == [1.0, 448.0, -448.0, 0.0078125, 16.0]


def test_rounding_is_half_to_even():
    x = torch.tensor([0.5, 1.5, 2.5, -0.5, -1.5, 2.4999])
    call = relax.op.round(relax.const(x.numpy(), "float32"))
    assert meaning_of("relax.round")(call, x).tolist() == [0, 2, 2, 0, -2, 2]
