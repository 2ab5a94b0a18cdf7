"""Whole quantized models as the ecosystem makes them, against onnxruntime.

A value that lies on a rounding tie may fall the other way when a run time sums in another order.
So the network avoids what makes ties (averages of four codes), and results may differ by a step
here and there, but must be equal almost everywhere.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from fewbits.compiler.exporter import export_onnx
from fewbits.compiler.importer import import_onnx
from fewbits.ops.evaluate import Evaluator
from onnx import helper, numpy_helper
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantFormat,
    QuantType,
    quantize_dynamic,
    quantize_static,
)

SHARED = Path(__file__).resolve().parents[4] / "shared"
RNG = np.random.default_rng(5)


def floats(*shape, scale=0.3):
    return (RNG.standard_normal(shape) * scale).astype("float32")


def network():
    """Every layer kind that onnxruntime quantizes, in 17 nodes."""
    weights = {
        "w1": floats(8, 3, 3, 3), "b1": floats(8), "w2": floats(8, 1, 3, 3), "b2": floats(8),
        "w3": floats(16, 16, 1, 1), "b3": floats(16), "w4": floats(16, 10), "b4": floats(10),
        "w5": floats(10, 6), "b5": floats(1, 6), "shape": np.array([1, 16]),
        "pads": np.array([0, 0, 0, 0, 0, 0, 1, 1]),
    }  # fmt: skip
    node = helper.make_node
    nodes = [
        node("Conv", ["x", "w1", "b1"], ["c1"], "conv1", pads=[1, 1, 1, 1]),
        node("Relu", ["c1"], ["r1"], "relu1"),
        node("MaxPool", ["r1"], ["p1"], "pool", kernel_shape=[2, 2], strides=[2, 2]),
        node("Pad", ["p1", "pads"], ["pad"], "pad"),
        node("Conv", ["pad", "w2", "b2"], ["c2"], "depthwise", pads=[1, 1, 0, 0], group=8),
        node("LeakyRelu", ["c2"], ["l2"], "leaky", alpha=0.1),
        node("Add", ["l2", "p1"], ["a"], "residual"),
        node("Sigmoid", ["a"], ["g"], "gate"),
        node("Mul", ["a", "g"], ["m"], "swish"),
        node("Concat", ["m", "l2"], ["cat"], "concat", axis=1),
        node("AveragePool", ["cat"], ["ap"], "average", kernel_shape=[3, 3]),
        node("Conv", ["ap", "w3", "b3"], ["c3"], "pointwise"),
        node("GlobalAveragePool", ["c3"], ["gap"], "global"),
        node("Reshape", ["gap", "shape"], ["flat"], "flatten"),
        node("Gemm", ["flat", "w4", "b4"], ["fc"], "dense"),
        node("MatMul", ["fc", "w5"], ["mm"], "product"),
        node("Add", ["mm", "b5"], ["logits"], "bias"),
        node("Softmax", ["logits"], ["y"], "softmax"),
    ]
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("x", 1, [1, 3, 8, 8])],
        [helper.make_tensor_value_info("y", 1, [1, 6])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


class Samples(CalibrationDataReader):
    def __init__(self, samples):
        self.rest = iter(samples)

    def get_next(self):
        return next(self.rest, None)


@pytest.fixture(scope="module")
def float_model(tmp_path_factory):
    path = tmp_path_factory.mktemp("network") / "float.onnx"
    onnx.save(network(), path)
    return path


def session(model):
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model.SerializeToString(), options)


def samples(count):
    return [{"x": floats(1, 3, 8, 8, scale=1.0)} for _ in range(count)]


def compare(model, inputs, step):
    """Module and re-exported module against onnxruntime, in steps of the output scale."""
    imported = import_onnx(model)
    evaluator = Evaluator(imported.module)
    reference = session(imported.onnx_model)
    exported = export_onnx(imported.module, opset=max(13, imported.opset))
    onnx.checker.check_model(exported, full_check=True)
    again = session(exported)
    errors = []
    for sample in inputs:
        [expected] = reference.run(None, sample)
        tensors = {name: torch.from_numpy(value) for name, value in sample.items()}
        [mine] = evaluator(tensors).values()
        [back] = again.run(None, sample)
        errors.append(np.abs(np.stack([mine.numpy(), back]) - expected) / step)
    errors = np.stack(errors)
    assert errors.max() <= 2.01
    assert (errors > 0.01).mean() < 0.05
    return imported.module


def value_dtypes(module):
    bindings = [b.var for block in module["main"].body.blocks for b in block.bindings]
    return {str(var.ty.dtype.dtype) for var in bindings if hasattr(var.ty, "dtype")}


STATIC = [
    (activations, weights, per_channel)
    for activations, weights in (("QUInt8", "QInt8"), ("QUInt8", "QUInt8"), ("QInt8", "QInt8"))
    for per_channel in (False, True)
]


@pytest.mark.parametrize("quant_format", list(QuantFormat))
@pytest.mark.parametrize(("activations", "weights", "per_channel"), STATIC)
def test_static_quantization(
    float_model, tmp_path, quant_format, activations, weights, per_channel
):
    path = tmp_path / "quantized.onnx"
    quantize_static(
        float_model,
        path,
        Samples(samples(16)),
        quant_format=quant_format,
        per_channel=per_channel,
        activation_type=QuantType[activations],
        weight_type=QuantType[weights],
    )
    module = compare(onnx.load(path), samples(8), 1 / 256)
    assert value_dtypes(module) == {"int8", "float32"}


def test_static_quantization_to_16_bits(float_model, tmp_path):
    path = tmp_path / "quantized.onnx"
    quantize_static(
        float_model,
        path,
        Samples(samples(16)),
        activation_type=QuantType.QUInt16,
        weight_type=QuantType.QInt8,
    )
    module = compare(onnx.load(path), samples(4), 1 / 256)
    assert value_dtypes(module) == {"int16", "float32"}


def test_both_formats_give_the_same_layers(float_model, tmp_path):
    """The same integer layers can be recognised in either format."""
    layers = []
    for quant_format in QuantFormat:
        path = tmp_path / f"{quant_format}.onnx"
        data = [{"x": np.linspace(-1, 1, 192, dtype="float32").reshape(1, 3, 8, 8)}]
        quantize_static(float_model, path, Samples(data), quant_format=quant_format)
        module = import_onnx(path).module
        bindings = [b for block in module["main"].body.blocks for b in block.bindings]
        calls = {b.var: b.value for b in bindings}
        convolutions = [c for c in calls.values() if c.op.name == "relax.nn.conv2d"]
        layers.append([[calls[argument].op.name for argument in c.args] for c in convolutions])
    assert layers[0] == layers[1] == [["relax.dequantize"] * 2] * 3


@pytest.mark.parametrize("weights", ["QInt8", "QUInt8"])
@pytest.mark.parametrize("per_channel", [False, True])
def test_dynamic_quantization(float_model, tmp_path, weights, per_channel):
    path = tmp_path / "quantized.onnx"
    quantize_dynamic(
        float_model,
        path,
        weight_type=QuantType[weights],
        per_channel=per_channel,
        op_types_to_quantize=["Conv", "Gemm", "MatMul"],
    )
    model = onnx.load(path)
    assert {"ConvInteger", "MatMulInteger"} <= {node.op_type for node in model.graph.node}
    imported = import_onnx(model)
    evaluator, reference = Evaluator(imported.module), session(imported.onnx_model)
    again = session(export_onnx(imported.module, opset=18))
    for sample in samples(4):
        [expected] = reference.run(None, sample)
        [mine] = evaluator({"x": torch.from_numpy(sample["x"])}).values()
        np.testing.assert_allclose(mine.numpy(), expected, atol=1e-5)
        np.testing.assert_allclose(again.run(None, sample)[0], expected, atol=1e-5)


def constant_node(name, value):
    return helper.make_node("Constant", [], [name], value=numpy_helper.from_array(value))


@pytest.mark.parametrize("stored", ["float", "int8"])
@pytest.mark.parametrize("axis", [0, 1])
def test_pytorch_export(stored, axis):
    """Scales as Constant nodes, weights as float → Q → DQ or as int8 → DQ, Linear as Gemm."""
    shape = (6, 8) if axis == 0 else (8, 6)
    weight = floats(*shape)
    scale = np.abs(weight).max(1 - axis) / 127
    codes = np.rint(weight / np.expand_dims(scale, 1 - axis)).astype("int8")
    node = helper.make_node
    nodes = [
        constant_node("xs", np.float32(0.04)),
        constant_node("xz", np.int8(5)),
        constant_node("ws", scale),
        constant_node("wz", np.zeros(6, "int8")),
        constant_node("ys", np.float32(0.03)),
        constant_node("yz", np.int8(-7)),
        node("QuantizeLinear", ["x", "xs", "xz"], ["xq"]),
        node("DequantizeLinear", ["xq", "xs", "xz"], ["xd"]),
        node("QuantizeLinear", ["w", "ws", "wz"], ["wq"], axis=axis),
        node("DequantizeLinear", ["wq", "ws", "wz"], ["wd"], axis=axis),
        node("Gemm", ["xd", "wd", "b"], ["g"], "linear", transB=1 - axis),
        node("QuantizeLinear", ["g", "ys", "yz"], ["gq"]),
        node("DequantizeLinear", ["gq", "ys", "yz"], ["y"]),
    ]
    constants = {"w": weight, "b": floats(6)}
    if stored == "int8":
        nodes = [n for n in nodes if n.output[0] != "wq"]
        constants = {"wq": codes, "b": constants["b"]}
    graph = helper.make_graph(
        nodes,
        "torch",
        [helper.make_tensor_value_info("x", 1, [2, 8])],
        [helper.make_tensor_value_info("y", 1, [2, 6])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    module = compare(model, [{"x": floats(2, 8, scale=2)} for _ in range(8)], 0.03)
    calls = [b.value for block in module["main"].body.blocks for b in block.bindings]
    dequantized = [c for c in calls if c.op.name == "relax.dequantize"]
    stored_codes = [c.args[0].value.numpy() for c in dequantized if hasattr(c.args[0], "value")]
    assert len(stored_codes) == 1
    np.testing.assert_array_equal(stored_codes[0], codes)


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared models are not here")
@pytest.mark.parametrize("task_name", ["kws", "resnet8"])
@pytest.mark.parametrize("quant_format", list(QuantFormat))
def test_real_network(task_name, quant_format, tmp_path):
    specification = importlib.util.spec_from_file_location("realdata", SHARED / "realdata.py")
    assert specification is not None and specification.loader is not None
    realdata = importlib.util.module_from_spec(specification)
    sys.modules["realdata"] = realdata  # its dataclasses look their module up
    specification.loader.exec_module(realdata)
    task = realdata.load(task_name)
    data = {name: values[:24] for name, values in task.calibration.items()}
    count = len(next(iter(data.values())))
    rows = [{name: v[i : i + 1] for name, v in data.items()} for i in range(count)]
    path = tmp_path / "quantized.onnx"
    quantize_static(task.model, path, Samples(rows), per_channel=True, quant_format=quant_format)
    imported = import_onnx(path)
    evaluator, reference = Evaluator(imported.module), session(imported.onnx_model)
    same, errors = 0, []
    chosen = [{n: v[i : i + 1] for n, v in task.inputs.items()} for i in range(0, 200, 10)]
    for sample in chosen:
        sample = {name: value.astype("float32") for name, value in sample.items()}
        [expected] = reference.run(None, sample)
        [mine] = evaluator({n: torch.from_numpy(v) for n, v in sample.items()}).values()
        same += int(mine.numpy().argmax() == expected.argmax())
        errors.append(np.abs(mine.numpy() - expected).mean())
    assert same >= len(chosen) - 1
    assert np.mean(errors) <= 1 / 256
    assert value_dtypes(imported.module) == {"int8", "float32"}
