"""`fewbits quantize`: the exported QDQ model is the model that `fewbits compile` compiles.

onnxruntime runs it with the same results, weights are int8 behind DequantizeLinear, and compiling
the exported file gives the same integer module as compiling the float model.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from fewbits.compiler.driver import compress
from fewbits.compiler.exporter import export_onnx
from fewbits.compiler.options import Options
from fewbits.ops.evaluate import Evaluator
from fewbits.passes.rewrite import Rewriter, as_array, operator_of
from fewbits.targets.mcu.integer import to_integer
from onnx import numpy_helper
from tvm import ir, relax

ROOT = Path(__file__).resolve().parents[2]
SHARED = ROOT.parent / "shared"
DIGITS = ("digits_dscnn", "digits_resnet")
REAL = ("kws", "vww", "resnet8", "ad")


def real_task(name):
    if not SHARED.is_dir():
        pytest.skip("the shared models are not here")
    specification = importlib.util.spec_from_file_location("realdata", SHARED / "realdata.py")
    assert specification is not None and specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    sys.modules["realdata"] = module  # its dataclasses look their module up
    specification.loader.exec_module(module)
    return module.load(name)


def model_and_data(name):
    """Path of a float model, calibration samples, and a few others."""
    if name in REAL:
        task = real_task(name)
        [(key, calibration)] = task.calibration.items()
        [inputs] = task.inputs.values()
        some = inputs[:: max(1, len(inputs) // 40)]
        return task.model, {key: calibration[:16].astype("float32")}, some.astype("float32")
    datasets = pytest.importorskip("sklearn.datasets")
    images = datasets.load_digits().images.astype("float32")[:, None] / 16
    model = ROOT / "models" / f"{name}.onnx"
    [info] = onnx.load(model).graph.input
    shape = [d.dim_value for d in info.type.tensor_type.shape.dim][1:]
    images = images.reshape(-1, *shape)
    return model, {info.name: images[:32]}, images[100:140]


def bindings_of(module):
    """Everything that the integer module computes with, without names."""
    found = []
    for var, value in Rewriter(module).bindings:
        assert isinstance(value, relax.Call)
        attributes = {}
        if operator_of(value).startswith("fewbits."):
            attributes = dict(value.attrs.items())
            attributes = {str(k): str(v) for k, v in attributes.items() if k != "stands_for"}
        constants = [as_array(a) for a in value.args if isinstance(a, ir.GenericConst)]
        found.append((operator_of(value), str(var.ty), attributes, constants))
    return found


@pytest.mark.parametrize("name", [*DIGITS, *REAL])
def test_the_exported_model_is_the_compiled_model(name):
    model, calibration, inputs = model_and_data(name)
    state = compress(model, Options(recipe="int8"), calibration)
    exported = export_onnx(state.compressed, opset=21, name=name)
    onnx.checker.check_model(exported, full_check=True)

    # 1. onnxruntime agrees with the QDQ module.
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(exported.SerializeToString(), options)
    [key] = calibration
    theirs = np.concatenate([session.run(None, {key: row[None]})[0] for row in inputs])
    evaluator = Evaluator(state.compressed)
    ours = np.concatenate(
        [next(iter(v.values())).numpy() for v in evaluator.batched({key: inputs})]
    ).reshape(theirs.shape)
    step = next(
        as_array(value.args[1]).item()
        for _, value in reversed(Rewriter(state.compressed).bindings)
        if operator_of(value) == "relax.quantize"
    )
    flat = theirs.reshape(len(theirs), -1)
    assert (ours.reshape(flat.shape).argmax(1) == flat.argmax(1)).mean() >= 0.97
    assert np.abs(ours - theirs).mean() < 0.25 * step

    # 2. No float weights are left: what is float and large is a scale or not a weight.
    constants = {t.name: numpy_helper.to_array(t) for t in exported.graph.initializer}
    producers = {output: node for node in exported.graph.node for output in node.output}
    weighted = [n for n in exported.graph.node if n.op_type in ("Conv", "Gemm", "MatMul")]
    assert weighted
    for node in weighted:
        dequantize = producers[node.input[1]]
        assert dequantize.op_type == "DequantizeLinear"
        codes, scale = (constants[dequantize.input[i]] for i in (0, 1))
        assert codes.dtype == np.int8 and codes.min() >= -127
        assert scale.size in codes.shape

    # 3. Compiling the exported model needs no data and gives the same integers.
    again = compress(exported, Options(recipe="int8"))
    direct, roundabout = (to_integer(s.compressed) for s in (state, again))
    assert direct.interface == roundabout.interface
    codes = np.clip(np.rint(inputs / direct.interface.inputs[0][0]), -128, 127).astype(np.int8)
    for a, b in zip(
        *(Evaluator(m.module).batched({key: codes}) for m in (direct, roundabout)), strict=True
    ):
        np.testing.assert_array_equal(*(next(iter(v.values())).numpy() for v in (a, b)))
    if name == "vww":  # one filter has only zero codes: canonicalize removes it from the QDQ model
        return
    pairs = zip(bindings_of(direct.module), bindings_of(roundabout.module), strict=True)
    for (*mine, constants_a), (*other, constants_b) in pairs:
        assert mine == other
        for a, b in zip(constants_a, constants_b, strict=True):
            np.testing.assert_array_equal(a, b)
