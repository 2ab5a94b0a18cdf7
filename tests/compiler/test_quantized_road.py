"""Models quantized by others, from ONNX to verified firmware, without calibration data."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from fewbits.compiler.api import compile as compile_model
from onnx import helper, numpy_helper
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantFormat,
    QuantType,
    quantize_dynamic,
    quantize_static,
)

RNG = np.random.default_rng(11)


def floats(*shape, scale=0.3):
    return (RNG.standard_normal(shape) * scale).astype("float32")


@pytest.fixture(scope="module")
def float_model(tmp_path_factory):
    weights = {
        "w1": floats(8, 2, 3, 3) + 0.1, "b1": floats(8), "w2": floats(8, 1, 3, 3), "b2": floats(8),
        "w3": floats(128, 5), "b3": floats(5), "shape": np.array([1, 128]),
    }  # fmt: skip
    node = helper.make_node
    nodes = [
        node("Conv", ["x", "w1", "b1"], ["c1"], "conv", pads=[1, 1, 1, 1], strides=[2, 2]),
        node("Relu", ["c1"], ["r1"], "relu"),
        node("Conv", ["r1", "w2", "b2"], ["c2"], "depthwise", pads=[1, 1, 1, 1], group=8),
        node("Add", ["c2", "r1"], ["a"], "residual"),
        node("Reshape", ["a", "shape"], ["flat"], "flatten"),
        node("Gemm", ["flat", "w3", "b3"], ["fc"], "dense"),
        node("Softmax", ["fc"], ["y"], "softmax"),
    ]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", 1, [1, 2, 8, 8])],
        [helper.make_tensor_value_info("y", 1, [1, 5])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    path = tmp_path_factory.mktemp("net") / "net.onnx"
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path
    )
    return path


class Samples(CalibrationDataReader):
    def __init__(self):
        self.rest = iter([{"x": floats(1, 2, 8, 8, scale=1.0)} for _ in range(8)])

    def get_next(self):
        return next(self.rest, None)


def exact(artifact):
    golden = artifact.manifest["golden"]
    return golden["exact"] and golden["samples"] > 0


@pytest.mark.parametrize("quant_format", list(QuantFormat))
@pytest.mark.parametrize("weights", ["QInt8", "QUInt8"])
def test_static(float_model, tmp_path, quant_format, weights):
    """uint8 weights with zero points are 16-bit weights without; both are exact."""
    path = tmp_path / "quantized.onnx"
    quantize_static(
        float_model,
        path,
        Samples(),
        quant_format=quant_format,
        activation_type=QuantType[weights],
        weight_type=QuantType[weights],
        per_channel=weights == "QInt8",
    )
    artifact = compile_model(path, tmp_path / "build", target="cortex-m4")
    assert artifact.manifest["float_layers"] == []
    assert [port["dtype"] for port in artifact.manifest["inputs"]] == ["int8"]
    assert exact(artifact)


def test_dynamic(float_model, tmp_path):
    """MatMulInteger, ConvInteger and DynamicQuantizeLinear: integers where they are in ONNX."""
    path = tmp_path / "dynamic.onnx"
    quantize_dynamic(float_model, path, op_types_to_quantize=["Conv", "Gemm", "MatMul"])
    artifact = compile_model(path, tmp_path / "build", target="cortex-m4")
    assert exact(artifact)
