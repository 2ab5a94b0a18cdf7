"""Quantized models layer by layer: each integer operator gets the QDQ model's own codes.

Given equal inputs an integer operator may differ from the QDQ model only by rounding: onnxruntime
divides a float by the output's scale and rounds half to even, we multiply an integer and shift,
half upwards. That is one step at most.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from fewbits.compiler.importer import import_onnx
from fewbits.compiler.recipe import load_recipe
from fewbits.ops.evaluate import Environment, Evaluator
from fewbits.passes.base import PassContext
from fewbits.passes.integer_only import integer_only
from fewbits.passes.rewrite import Rewriter, operator_of
from fewbits.targets.mcu.integer import to_integer
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

SHARED = Path(__file__).resolve().parents[4] / "shared"
pytestmark = pytest.mark.skipif(not SHARED.is_dir(), reason="the shared models are not here")

#: Operators whose result has channels last where the QDQ model has them at axis 1.
CHANNELS_LAST = {"fewbits.conv2d", "fewbits.average_pool2d", "fewbits.max_pool2d"}


@pytest.fixture(scope="module")
def realdata():
    specification = importlib.util.spec_from_file_location("realdata", SHARED / "realdata.py")
    assert specification is not None and specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    sys.modules["realdata"] = module  # its dataclasses look their module up
    specification.loader.exec_module(module)
    return module


class Rows(CalibrationDataReader):
    def __init__(self, name, values):
        self.rest = iter([{name: row[None].astype("float32")} for row in values])

    def get_next(self):
        return next(self.rest, None)


def quantized(task, folder, quant_format, activations, weights, per_channel):
    """The task's model, quantized by onnxruntime and then compressed by the int8 recipe."""
    [(name, values)] = task.calibration.items()
    path = folder / "quantized.onnx"
    quantize_static(
        task.model,
        path,
        Rows(name, values[:8]),
        quant_format=quant_format,
        per_channel=per_channel,
        activation_type=QuantType[activations],
        weight_type=QuantType[weights],
    )
    imported = import_onnx(path)
    module, context = imported.module, PassContext()  # no calibration data
    for pass_ in load_recipe("int8").build():
        module = pass_.apply(module, context)
    assert [n.message for n in context.notes if n.pass_name == "quantize"] == [
        "the model brings its own scales; they are kept"
    ]
    return imported, module


def codes_by_real_name(module, sample):
    """What the QDQ module's quantizes yield for a sample, by the name of the value quantized."""
    values = {}
    Evaluator(module)(sample, lambda name, value: values.setdefault(name, value))
    return {
        value.args[0].name: values[var.name]
        for var, value in Rewriter(module).bindings
        if operator_of(value) == "relax.quantize"
    }


def worst_steps(module, sample):
    """Largest difference per integer operator, given the QDQ model's codes as its inputs."""
    expected = codes_by_real_name(module, sample)
    integer = integer_only(module)
    evaluator = Evaluator(integer)
    environment = Environment(dict(zip(evaluator.parameters, sample.values(), strict=True)), {})
    worst = {}
    for var, call in Rewriter(integer).bindings:
        result = evaluator.evaluate(call, environment)
        stands_for = call.attrs["stands_for"] if operator_of(call).startswith("fewbits.") else ""
        if stands_for:
            codes = expected[stands_for]
            if operator_of(call) in CHANNELS_LAST:
                if codes.dim() == 2:
                    codes = codes[:, :, None, None]
                codes = codes.permute(0, 2, 3, 1)
            difference = (result.int() - codes.reshape(result.shape).int()).abs()
            worst[var.name] = int(difference.max())
            result = codes.reshape(result.shape)
        environment.values[var] = result
    return worst


@pytest.mark.parametrize("quant_format", list(QuantFormat))
@pytest.mark.parametrize(
    ("task_name", "activations", "weights", "per_channel"),
    [
        ("kws", "QUInt8", "QInt8", False),
        ("kws", "QUInt8", "QUInt8", False),
        ("kws", "QInt8", "QInt8", True),
        ("vww", "QInt8", "QInt8", True),
        ("resnet8", "QInt8", "QInt8", True),
        ("resnet8", "QUInt8", "QUInt8", False),
        ("ad", "QInt8", "QInt8", True),
        ("ad", "QUInt8", "QUInt8", False),
    ],
)
def test_every_layer_is_within_a_step(
    realdata, tmp_path, quant_format, task_name, activations, weights, per_channel
):
    task = realdata.load(task_name)
    _, module = quantized(task, tmp_path, quant_format, activations, weights, per_channel)
    [(name, values)] = task.inputs.items()
    worst = {}
    for row in values[:: len(values) // 3][:3]:
        sample = {name: torch.from_numpy(row[None].astype("float32"))}
        for layer, steps in worst_steps(module, sample).items():
            worst[layer] = max(worst.get(layer, 0), steps)
    assert len(worst) >= 10
    assert {layer: steps for layer, steps in worst.items() if steps > 1} == {}


def test_nothing_stays_float(realdata, tmp_path):
    """Also where the exporter put a reshape between the input and its quantize."""
    task = realdata.load("kws")
    _, module = quantized(task, tmp_path, QuantFormat.QDQ, "QInt8", "QInt8", True)
    integer = to_integer(module)
    dtypes = {str(var.ty.dtype) for var, _ in Rewriter(integer.module).bindings}
    assert dtypes == {"int8"}
    assert integer.interface.inputs != (None,) and integer.interface.outputs != (None,)


def test_classes_agree_with_onnxruntime(realdata, tmp_path):
    import onnxruntime

    task = realdata.load("kws")
    imported, module = quantized(task, tmp_path, QuantFormat.QDQ, "QUInt8", "QUInt8", False)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    model = imported.onnx_model.SerializeToString()
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    integer = to_integer(module)
    [(scale, zero_point)] = integer.interface.inputs
    [(name, values)] = task.inputs.items()
    rows = values[::9].astype("float32")
    codes = np.clip(np.rint(rows / np.float32(scale)) + zero_point, -128, 127).astype("int8")
    evaluator = Evaluator(integer.module)
    [mine] = [next(iter(v.values())) for v in evaluator.batched({name: codes}, chunk=len(codes))]
    theirs = np.concatenate([session.run(None, {name: row[None]})[0] for row in rows])
    classes = mine.numpy().reshape(len(rows), -1).argmax(1)
    assert (classes == theirs.argmax(1)).mean() >= 0.97
