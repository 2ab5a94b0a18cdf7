"""Equalization keeps the function and evens the ranges."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from fewbits.compiler.importer import import_onnx
from fewbits.ops.evaluate import Evaluator
from fewbits.passes.base import PassContext, make_pass
from fewbits.passes.canonicalize import canonicalize
from fewbits.passes.equalize import Equalize
from fewbits.passes.rewrite import Rewriter, as_array, operator_of
from onnx import helper, numpy_helper

RNG = np.random.default_rng(3)


def uneven(*shape, axis=0):
    """Weights whose channels differ in size by four orders of magnitude."""
    sizes = 10.0 ** RNG.uniform(-2, 2, shape[axis])
    weights = RNG.standard_normal(shape) * np.expand_dims(
        sizes, tuple(i for i in range(len(shape)) if i != axis)
    )
    return weights.astype("float32")


def module_of(nodes, constants, shape, out="y"):
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", 1, shape)],
        [onnx.ValueInfoProto(name=out)],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info(out, 1, None))
    return canonicalize(import_onnx(model).module)


node = helper.make_node


def convolutions(activation):
    """conv → activation → max pool → depthwise → activation → average → flatten → dense."""
    nodes = [
        node("Conv", ["x", "w1", "b1"], ["c1"], "conv", pads=[1, 1, 1, 1]),
        *activation("c1", "r1"),
        node("MaxPool", ["r1"], ["p1"], "pool", kernel_shape=[2, 2], strides=[2, 2]),
        node("Conv", ["p1", "w2", "b2"], ["c2"], "depthwise", pads=[1, 1, 1, 1], group=6),
        *activation("c2", "r2"),
        node("AveragePool", ["r2"], ["p2"], "average", kernel_shape=[2, 2], strides=[2, 2]),
        node("Flatten", ["p2"], ["f"], "flatten"),
        node("Gemm", ["f", "w3", "b3"], ["d1"], "hidden"),
        node("Relu", ["d1"], ["r3"], "relu3"),
        node("Gemm", ["r3", "w4"], ["y"], "logits"),
    ]
    constants = {
        "w1": uneven(6, 3, 3, 3), "b1": uneven(6), "w2": uneven(6, 1, 3, 3), "b2": uneven(6),
        "w3": uneven(24, 8, axis=1), "b3": uneven(8), "w4": uneven(8, 5),
    }  # fmt: skip
    return module_of(nodes, constants, [1, 3, 8, 8])


def relu(source, result):
    return [node("Relu", [source], [result], result)]


def leaky(source, result):
    return [node("LeakyRelu", [source], [result], result, alpha=0.2)]


def nothing(source, result):
    return [node("Identity", [source], [result], result)]


def sigmoid(source, result):
    return [node("Sigmoid", [source], [result], result)]


def weights(module):
    return {
        var.name.removesuffix(":1"): as_array(value.args[1])
        for var, value in Rewriter(module).bindings
        if operator_of(value) in ("relax.nn.conv2d", "relax.matmul")
    }


def run(module, x):
    return next(iter(Evaluator(module)({"x": torch.from_numpy(x)}).values())).numpy()


@pytest.mark.parametrize("activation", [relu, leaky, nothing])
def test_function_is_kept_and_ranges_are_even(activation):
    before = convolutions(activation)
    context = PassContext()
    after = Equalize().apply(before, context)
    assert context.notes[0].data["pairs"] == 3
    x = RNG.standard_normal((1, 3, 8, 8)).astype("float32")
    expected = run(before, x)
    np.testing.assert_allclose(
        run(after, x), expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max()
    )
    conv, depthwise = weights(after)["conv"], weights(after)["depthwise"]
    rows = np.abs(conv).reshape(6, -1).max(1)
    columns = np.abs(depthwise).reshape(6, -1).max(1)
    np.testing.assert_allclose(rows, columns, rtol=1e-2)
    hidden, logits = weights(after)["hidden"], weights(after)["logits"]
    np.testing.assert_allclose(np.abs(hidden).max(0), np.abs(logits).max(1), rtol=1e-2)


def test_flattened_channels_scale_all_their_columns():
    after = Equalize().apply(convolutions(relu), PassContext())
    depthwise, hidden = weights(after)["depthwise"], weights(after)["hidden"]
    rows = np.abs(depthwise).reshape(6, -1).max(1)
    columns = np.abs(hidden).reshape(6, 4, 8).max((1, 2))
    np.testing.assert_allclose(rows, columns, rtol=1e-2)


def test_what_is_not_homogeneous_stops_it():
    before = convolutions(sigmoid)
    context = PassContext()
    after = Equalize().apply(before, context)
    assert context.notes[0].data["pairs"] == 1  # only the two dense layers
    np.testing.assert_array_equal(weights(before)["conv"], weights(after)["conv"])
    np.testing.assert_array_equal(weights(before)["depthwise"], weights(after)["depthwise"])


@pytest.mark.parametrize("other", ["second user", "output"])
def test_values_with_other_users_keep_their_scale(other):
    nodes = [
        node("Conv", ["x", "w1", "b1"], ["c1"], "first"),
        node("Conv", ["c1", "w2"], ["c2"], "second"),
    ]
    if other == "second user":
        nodes.append(node("Add", ["c1", "c2"], ["y"], "sum"))
        module = module_of(
            nodes, {"w1": uneven(4, 2, 1, 1), "b1": uneven(4), "w2": uneven(4, 4, 1, 1)},
            [1, 2, 4, 4],
        )  # fmt: skip
    else:
        module = module_of(
            nodes, {"w1": uneven(4, 2, 1, 1), "b1": uneven(4), "w2": uneven(4, 4, 1, 1)},
            [1, 2, 4, 4], "c1",
        )  # fmt: skip
    assert Equalize().apply(module, PassContext()) is module


def test_dead_channels_and_missing_biases():
    first = uneven(4, 2, 1, 1)
    first[1] = 0
    second = uneven(3, 4, 1, 1)
    second[:, 2] = 0
    nodes = [
        node("Conv", ["x", "w1"], ["c1"], "first"),
        node("Relu", ["c1"], ["r1"], "relu"),
        node("Conv", ["r1", "w2"], ["y"], "second"),
    ]
    graph_module = import_onnx(
        helper.make_model(
            helper.make_graph(
                nodes,
                "net",
                [helper.make_tensor_value_info("x", 1, [1, 2, 4, 4])],
                [helper.make_tensor_value_info("y", 1, [1, 3, 4, 4])],
                [numpy_helper.from_array(first, "w1"), numpy_helper.from_array(second, "w2")],
            ),
            opset_imports=[helper.make_opsetid("", 17)],
            ir_version=9,
        )
    ).module
    after = Equalize().apply(graph_module, PassContext())
    x = RNG.standard_normal((1, 2, 4, 4)).astype("float32")
    np.testing.assert_allclose(run(after, x), run(graph_module, x), rtol=1e-5, atol=1e-5)
    assert np.isfinite(weights(after)["first"]).all()


def test_layers_can_be_left_out():
    before = convolutions(relu)
    after = Equalize(ignore=("depthwise",)).apply(before, PassContext())
    np.testing.assert_array_equal(weights(before)["conv"], weights(after)["conv"])
    np.testing.assert_array_equal(weights(before)["depthwise"], weights(after)["depthwise"])


def test_its_text_form():
    assert str(make_pass("equalize{iterations=5}")) == "equalize{iterations=5}"
