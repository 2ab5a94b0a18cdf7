"""What an exported model looks like: names, constants, biases, determinism, errors."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from fewbits.compiler.exporter import export_onnx
from fewbits.errors import FewbitsError
from onnx import numpy_helper
from tvm import ir, relax, tirx

op = relax.op
RNG = np.random.default_rng(2)


def tensor(name, *shape, dtype="float32"):
    return relax.Var(name, relax.TensorType(shape, dtype))


def module(inputs, bindings, results, output_names):
    """A module from (name, expression builder) pairs; a builder gets the values by name."""
    values = {v.name: v for v in inputs}
    normalizer = relax.BlockBuilder()
    done = []
    for name, make in bindings:
        value = normalizer.normalize(make(values))
        values[name] = relax.DataflowVar(name, value.ty)
        done.append(relax.VarBinding(values[name], value))
    fields = [values[r] if isinstance(r, str) else r for r in results]
    body = fields[0] if len(fields) == 1 else relax.Tuple(fields)
    body = normalizer.normalize(body)
    names = {"input_names": [v.name for v in inputs], "output_names": output_names}
    function = relax.Function(
        inputs,
        relax.SeqExpr([relax.DataflowBlock(done)], body),
        ret_ty=body.ty,
        attrs=ir.make_node("ir.DictAttrs", **names),
    )
    return ir.IRModule({ir.GlobalVar("main"): function})


def const(value, dtype="float32"):
    return relax.const(np.asarray(value, dtype), dtype)


def floats(*shape):
    return RNG.standard_normal(shape).astype("float32")


def run(model, **inputs):
    onnx.checker.check_model(model, full_check=True)
    return onnxruntime.InferenceSession(model.SerializeToString()).run(None, inputs)


def operators(model):
    return [node.op_type for node in model.graph.node]


def qdq_layer():
    """x → int8 → conv with int8 weights and int32 bias → ReLU → int8, as `quantize` leaves it."""
    scale, zero = const(0.1), const(3, "int8")
    weights = RNG.integers(-127, 128, (4, 3, 3, 3)).astype("int8")
    bias = RNG.integers(-900, 900, (1, 4, 1, 1)).astype("int32")
    ws = np.linspace(0.01, 0.02, 4, dtype="float32")
    return module(
        [tensor("image", 1, 3, 6, 6)],
        [
            ("image:q", lambda v: op.quantize(v["image"], scale, zero, -1, "int8")),
            ("image:dq", lambda v: op.dequantize(v["image:q"], scale, zero, -1)),
            ("c:weight", lambda v: op.dequantize(
                relax.const(weights), const(ws), const(np.zeros(4), "int8"), 0)),
            ("c", lambda v: op.nn.conv2d(v["image:dq"], v["c:weight"], padding=(1, 1))),
            ("c:bias", lambda v: op.dequantize(
                relax.const(bias), const(ws * 0.1), const(np.zeros(4), "int32"), 1)),
            ("c:sum", lambda v: op.add(v["c"], v["c:bias"])),
            ("relu", lambda v: op.nn.relu(v["c:sum"])),
            ("relu:q", lambda v: op.quantize(v["relu"], scale, const(-128, "int8"), -1, "int8")),
            ("relu:dq", lambda v: op.dequantize(v["relu:q"], scale, const(-128, "int8"), -1)),
        ],
        ["relu:dq"],
        ["result"],
    )  # fmt: skip


def test_a_quantized_layer_has_int8_weights_and_its_int32_bias_inside():
    model = export_onnx(qdq_layer())
    assert operators(model) == [
        "QuantizeLinear", "DequantizeLinear", "DequantizeLinear", "DequantizeLinear", "Conv",
        "Relu", "QuantizeLinear", "DequantizeLinear",
    ]  # fmt: skip
    stored = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    assert stored["c:weight.data"].dtype == "int8"
    assert stored["c.bias"].dtype == "int32"
    assert stored["c.bias"].shape == (4,)
    assert not any(a.dtype == "float32" and a.size > 4 for a in stored.values())
    [conv] = [node for node in model.graph.node if node.op_type == "Conv"]
    assert conv.name == "c"
    assert len(conv.input) == 3
    run(model, image=floats(1, 3, 6, 6))


def test_onnxruntime_recognises_the_integer_convolution(tmp_path):
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    onnxruntime.InferenceSession(export_onnx(qdq_layer()).SerializeToString(), options)
    assert "QLinearConv" in operators(onnx.load(tmp_path / "optimized.onnx"))


def test_nodes_are_called_as_their_variables_and_results_as_the_interface_says():
    built = module(
        [tensor("in", 2, 3)],
        [
            ("layer 'one'\n", lambda v: op.exp(v["in"])),
            ("日本", lambda v: op.tanh(v["layer 'one'\n"])),
        ],
        ["日本"],
        ["out"],
    )
    model = export_onnx(built, name="net")
    assert [node.name for node in model.graph.node] == ["layer 'one'\n", "日本"]
    assert [value.name for value in model.graph.input] == ["in"]
    assert [value.name for value in model.graph.output] == ["out"]
    assert model.graph.name == "net"
    x = floats(2, 3)
    np.testing.assert_allclose(run(model, **{"in": x})[0], np.tanh(np.exp(x)), rtol=1e-5)


def test_a_variable_may_be_called_like_an_output_of_another():
    built = module(
        [tensor("x", 3)],
        [("y", lambda v: op.exp(v["x"])), ("z", lambda v: op.negative(v["y"]))],
        ["z", "y"],
        ["y", "x2"],
    )
    x = floats(3)
    first, second = run(export_onnx(built), x=x)
    np.testing.assert_allclose(first, -np.exp(x), rtol=1e-6)
    np.testing.assert_allclose(second, np.exp(x), rtol=1e-6)


def test_inputs_constants_and_repeated_values_can_be_results():
    built = module(
        [tensor("x", 3)],
        [("e", lambda v: op.exp(v["x"]))],
        ["e", "e", "x", const([1, 2])],
        ["a", "b", "c", "d"],
    )
    x = floats(3)
    a, b, c, d = run(export_onnx(built), x=x)
    np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(c, x)
    np.testing.assert_array_equal(d, [1, 2])


def test_fields_of_a_split_are_called_as_their_variables():
    built = module(
        [tensor("x", 4, 2)],
        [
            ("parts", lambda v: op.split(v["x"], 2, 0)),
            ("upper", lambda v: relax.TupleGetItem(v["parts"], 0)),
            ("lower", lambda v: relax.TupleGetItem(v["parts"], 1)),
            ("sum", lambda v: op.add(v["upper"], v["lower"])),
        ],
        ["sum"],
        ["sum"],
    )
    model = export_onnx(built)
    assert list(model.graph.node[0].output) == ["upper", "lower"]
    x = floats(4, 2)
    np.testing.assert_allclose(run(model, x=x)[0], x[:2] + x[2:], rtol=1e-6)


def test_what_no_result_needs_is_left_out():
    built = module(
        [tensor("x", 3)],
        [("dead", lambda v: op.exp(v["x"])), ("y", lambda v: op.negative(v["x"]))],
        ["y"],
        ["y"],
    )
    assert operators(export_onnx(built)) == ["Neg"]


def test_equal_constants_are_stored_once():
    weight = floats(3, 3)
    built = module(
        [tensor("x", 2, 3)],
        [
            ("a", lambda v: op.matmul(v["x"], const(weight))),
            ("b", lambda v: op.matmul(v["a"], const(weight))),
        ],
        ["b"],
        ["b"],
    )
    assert len(export_onnx(built).graph.initializer) == 1


@pytest.mark.parametrize("transposed", [False, True])
def test_a_product_with_bias_is_a_gemm(transposed):
    weight, bias, x = floats(5, 8), floats(5), floats(2, 8)
    bindings = [
        ("w", lambda v: op.permute_dims(const(weight))),
        ("fc:1", lambda v: op.matmul(v["x"], v["w"] if transposed else const(weight.T))),
        ("fc", lambda v: op.add(v["fc:1"], const(bias))),
    ]
    model = export_onnx(module([tensor("x", 2, 8)], bindings, ["fc"], ["y"]))
    assert operators(model) == ["Gemm"]
    assert model.graph.node[0].name == "fc"
    np.testing.assert_allclose(run(model, x=x)[0], x @ weight.T + bias, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (1, 4, 6, 6), (6,)])
def test_an_addend_that_is_no_bias_stays_an_addition(shape):
    addend, x, weight = floats(*shape), floats(1, 3, 6, 6), floats(4, 3, 1, 1)
    bindings = [
        ("c", lambda v: op.nn.conv2d(v["x"], const(weight))),
        ("sum", lambda v: op.add(v["c"], const(addend))),
    ]
    model = export_onnx(module([tensor("x", 1, 3, 6, 6)], bindings, ["sum"], ["y"]))
    assert operators(model) == ["Conv", "Add"]
    expected = np.einsum("oc,nchw->nohw", weight[:, :, 0, 0], x) + addend
    np.testing.assert_allclose(run(model, x=x)[0], expected, rtol=1e-4, atol=1e-5)


def test_a_convolution_that_others_use_as_well_keeps_its_bias_apart():
    bindings = [
        ("c", lambda v: op.nn.conv2d(v["x"], const(floats(4, 3, 1, 1)))),
        ("sum", lambda v: op.add(v["c"], const(floats(1, 4, 1, 1)))),
        ("y", lambda v: op.multiply(v["c"], v["sum"])),
    ]
    model = export_onnx(module([tensor("x", 1, 3, 6, 6)], bindings, ["y"], ["y"]))
    assert operators(model) == ["Conv", "Add", "Mul"]


def test_the_same_module_gives_the_same_bytes():
    built = qdq_layer()
    first, second = (export_onnx(built).SerializeToString() for _ in range(2))
    assert first == second


def test_symbolic_batch_keeps_its_name():
    n = tirx.Var("n", "int64")
    x = relax.Var("x", relax.TensorType((n, 3), "float32"))
    model = export_onnx(module([x], [("y", lambda v: op.exp(v["x"]))], ["y"], ["y"]))
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "n"
    assert run(model, x=floats(5, 3))[0].shape == (5, 3)


def test_all_operators_without_onnx_form_are_in_one_error():
    x = tensor("x", 2, 3, 4, 5)
    bindings = [
        ("mid", lambda v: op.nn.attention(v["x"], v["x"], v["x"])),
        ("nhwc", lambda v: op.nn.max_pool2d(v["mid"], 2, 2, layout="NHWC")),
    ]
    with pytest.raises(FewbitsError) as caught:
        export_onnx(module([x], bindings, ["nhwc"], ["y"]))
    assert caught.value.code == "unsupported-operator"
    assert "relax.nn.attention at 'mid'" in caught.value.message
    assert "relax.nn.max_pool2d at 'nhwc' (layout NHWC" in caught.value.message


@pytest.mark.parametrize("opset", [12, 99])
def test_opsets_that_cannot_be_written_are_refused(opset):
    with pytest.raises(FewbitsError, match="cannot write opset"):
        export_onnx(qdq_layer(), opset=opset)
