"""Unsigned codes become signed ones, and unsigned numbers stay what they are."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
import torch
from fewbits.compiler.importer import import_onnx
from fewbits.ops.evaluate import Evaluator
from onnx import helper, numpy_helper, parser

RNG = np.random.default_rng(11)


def model(signature, body, **constants):
    """A model as text: ``{x} => y`` and its nodes; `s` and `z` are a scale and zero point."""
    text = f'<ir_version: 9, opset_import: ["" : 18]> g {signature} {{ {body} }}'
    built = parser.parse_model(text)
    values = {"s": np.float32(0.05), "z": np.uint8(100), **constants}
    used = {name for node in built.graph.node for name in node.input}
    built.graph.initializer.extend(
        numpy_helper.from_array(np.asarray(value), name)
        for name, value in values.items()
        if name in used
    )
    return built


def check(built, *, unsigned=0):
    """The module equals onnxruntime exactly, and holds `unsigned` unsigned values."""
    imported = import_onnx(built)
    inputs = {
        info.name: RNG.integers(0, 256, info.shape).astype(info.dtype)
        if info.dtype == "uint8"
        else RNG.standard_normal(info.shape).astype(info.dtype) * 4
        for info in imported.inputs
    }
    results = Evaluator(imported.module)({n: torch.from_numpy(x) for n, x in inputs.items()})
    session = onnxruntime.InferenceSession(built.SerializeToString())
    for mine, expected in zip(results.values(), session.run(None, inputs), strict=True):
        assert mine.numpy().dtype == expected.dtype
        np.testing.assert_array_equal(mine.numpy(), expected)
    names = [b.var for block in imported.module["main"].body.blocks for b in block.bindings]
    kinds = [str(v.ty.dtype.dtype) for v in names if hasattr(v.ty, "dtype")]
    assert kinds.count("uint8") == unsigned
    return imported.module


QUANTIZE = "q = QuantizeLinear(x, s, z)"
DEQUANTIZE = "y = DequantizeLinear(r, s, z)"


@pytest.mark.parametrize(
    "body",
    [
        "r = MaxPool<kernel_shape=[2,2]>(q)",
        "r = Transpose<perm=[3,1,2,0]>(q)",
        "r = Flatten(q)",
        "r = Concat<axis=1>(q, q)",
        "r = Max(q, half)",
        "r = Gather<axis=3>(q, indices)",
        "r = Slice(q, one, two, three)",
        "t = Squeeze(q, zero) r = Unsqueeze(t, zero)",
        "a, b = Split<axis=1, num_outputs=2>(q) r = Concat<axis=3>(b, a)",
        "r = Pad(q, pads, nine)",
        "r = Pad(q, pads)",
        'r = Pad<mode="reflect">(q, pads)',
        "big = Greater(q, half) r = Where(big, q, half)",
    ],
)
def test_moving_codes_stays_signed(body):
    built = model(
        "(float[1,2,4,4] x) => (float y)",
        f"{QUANTIZE} {body} {DEQUANTIZE}",
        half=np.full((1, 2, 4, 4), 120, "uint8"),
        indices=np.array([2, 0, 1], "int64"),
        zero=np.array([0], "int64"),
        one=np.array([1], "int64"),
        two=np.array([3], "int64"),
        three=np.array([3], "int64"),
        pads=np.array([0, 0, 1, 0, 0, 0, 1, 2], "int64"),
        nine=np.uint8(9),
    )
    built.graph.output[0].type.tensor_type.ClearField("shape")
    check(built)


def test_zero_points_of_quantize_and_dequantize_move_along():
    body = f"{QUANTIZE} r = Identity(q) {DEQUANTIZE}"
    module = check(model("(float[6] x) => (float[6] y)", body))
    calls = [b.value for block in module["main"].body.blocks for b in block.bindings]
    assert [int(call.args[2].value.numpy()) for call in calls] == [-28, -28]


def test_order_does_not_change():
    body = f"{QUANTIZE} y = ArgMax<axis=1>(q)"
    check(model("(float[3,6] x) => (int64[3,1] y)", body))


def test_arithmetic_sees_the_codes_that_onnx_has():
    body = f"{QUANTIZE} w = Cast<to=1>(q) y = Mul(w, w)"
    check(model("(float[8] x) => (float[8] y)", body), unsigned=2)


def test_unsigned_output_stays_unsigned():
    check(model("(float[8] x) => (uint8[8] q)", QUANTIZE), unsigned=2)


def test_unsigned_input_of_a_quantized_model():
    check(model("(uint8[2,3] r) => (float[2,3] y)", DEQUANTIZE), unsigned=1)


def test_an_image_on_its_way_to_float_is_left_alone():
    body = "w = Cast<to=1>(r) y = Mul(w, s)"
    module = check(model("(uint8[2,3] r) => (float[2,3] y)", body))
    calls = [b.value for block in module["main"].body.blocks for b in block.bindings]
    assert [call.op.name for call in calls] == ["relax.astype", "relax.multiply"]


def test_names_stay_with_their_values():
    body = "q = QuantizeLinear(x, s, z) y = DequantizeLinear(q, s, z)"
    built = model("(float[4] x) => (float[4] y)", body)
    built.graph.node[0].name, built.graph.node[1].name = "layer one", "back"
    module = check(built)
    names = [b.var.name for block in module["main"].body.blocks for b in block.bindings]
    assert names == ["layer one", "back"]


def test_uint16_becomes_int16():
    quantize = helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"], "quantize")
    back = helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"], "dequantize")
    graph = helper.make_graph(
        [quantize, back],
        "g",
        [helper.make_tensor_value_info("x", 1, [9])],
        [helper.make_tensor_value_info("y", 1, [9])],
        [
            numpy_helper.from_array(np.float32(0.001), "s"),
            numpy_helper.from_array(np.uint16(40000), "z"),
        ],
    )
    built = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    module = check(built)
    types = [b.var.ty.dtype.dtype for block in module["main"].body.blocks for b in block.bindings]
    assert [str(t) for t in types] == ["int16", "float32"]
