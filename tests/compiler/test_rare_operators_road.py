"""Operators that have an integer form but no kernel: generated code equals the oracle."""

from __future__ import annotations

import numpy as np
import pytest
from fewbits.compiler.api import compile as compile_model
from onnx import helper, numpy_helper

RNG = np.random.default_rng(13)
node = helper.make_node


def floats(*shape, scale=0.3):
    return (RNG.standard_normal(shape) * scale).astype("float32")


def network():
    """A small encoder and decoder with a normalized head."""
    constants = {
        "w1": floats(6, 2, 3, 3), "b1": floats(6), "slope": floats(6, 1, 1),
        "w2": floats(6, 4, 3, 3), "b2": floats(4), "empty": np.zeros(0, "float32"),
        "twice": np.array([1, 1, 2, 2], "float32"), "w3": floats(4, 6, 1, 1), "g": floats(16) + 1,
        "h": floats(16), "axis": np.array([1]), "rows": np.array([1, 16, 16]),
        "one": np.float32(1.0),
    }  # fmt: skip
    nodes = [
        node("Conv", ["x", "w1", "b1"], ["c"], "conv", strides=[2, 2], pads=[1, 1, 1, 1]),
        node("PRelu", ["c", "slope"], ["p"], "prelu"),
        node("ConvTranspose", ["p", "w2", "b2"], ["t"], "up", strides=[2, 2], pads=[0, 0, 1, 1]),
        node("Conv", ["p", "w3"], ["s"], "side"),
        node("Resize", ["s", "empty", "twice"], ["r"], "resize", mode="linear"),
        node("Max", ["t", "r"], ["m"], "larger"),
        node("ReduceMax", ["m"], ["peak"], "peak", axes=[1]),
        node("ReduceSum", ["m", "axis"], ["total"], "total"),
        node("Sigmoid", ["total"], ["gate"], "gate"),
        node("Add", ["gate", "one"], ["positive"], "positive"),
        node("Div", ["peak", "positive"], ["q"], "quotient"),
        node("Reshape", ["q", "rows"], ["f"], "rows"),
        node("LayerNormalization", ["f", "g", "h"], ["y"], "norm", axis=-1),
    ]
    graph = helper.make_graph(
        nodes,
        "decoder",
        [helper.make_tensor_value_info("x", 1, [1, 2, 16, 16])],
        [helper.make_tensor_value_info("y", 1, [1, 16, 16])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


@pytest.mark.parametrize("target", ["cortex-m4", "cortex-m0plus", "rv32imc", "c"])
def test_exact(tmp_path, target):
    calibration = {"x": floats(16, 2, 16, 16, scale=1.0)}
    artifact = compile_model(
        network(), tmp_path / "build", target=target, calibration=calibration, golden=2
    )
    manifest = artifact.manifest
    operators = {layer["operator"] for layer in manifest["layers"]}
    assert manifest["float_layers"] == []
    rare = ("prelu", "resize2d", "divide", "layer_norm")
    assert {f"fewbits.{name}" for name in rare} <= operators
    assert manifest["golden"]["exact"]
