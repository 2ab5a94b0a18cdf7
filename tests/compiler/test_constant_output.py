"""Outputs that no input changes, beside ones that are computed."""

import numpy as np
import pytest
from fewbits.compiler.api import compile, load
from onnx import TensorProto, helper, numpy_helper


@pytest.fixture
def model():
    values = np.array([1.5, -2.0, 3.0], np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("Relu", ["x"], ["y"]),
            helper.make_node("Identity", ["c"], ["z"]),
            helper.make_node("Shape", ["x"], ["s"]),
        ],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4])],
        [
            helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4]),
            helper.make_tensor_value_info("z", TensorProto.FLOAT, [3]),
            helper.make_tensor_value_info("s", TensorProto.INT64, [2]),
        ],
        [numpy_helper.from_array(values, "c")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])


@pytest.mark.parametrize("target", ["c", "cortex-m0plus"])
def test_constants_reach_the_caller(model, tmp_path, target):
    compile(model, tmp_path / "out", target=target, recipe="float")
    x = np.array([[-1.0, 2.0, -3.0, 4.0]], np.float32)
    outputs = load(tmp_path / "out")(x=x)
    np.testing.assert_array_equal(outputs["y"], np.maximum(x, 0))
    np.testing.assert_array_equal(outputs["z"].ravel(), [1.5, -2.0, 3.0])
    np.testing.assert_array_equal(outputs["s"].ravel(), [1, 4])
