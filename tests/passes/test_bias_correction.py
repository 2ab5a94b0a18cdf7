"""Bias correction makes channel means those of the float module."""

from __future__ import annotations

import numpy as np
import pytest
from fewbits.compiler.importer import import_onnx
from fewbits.errors import FewbitsError
from fewbits.passes.base import PassContext, make_pass
from fewbits.passes.bias_correction import BiasCorrection
from fewbits.passes.calibration import Calibration
from fewbits.passes.canonicalize import canonicalize
from fewbits.passes.quantize.quantize import Quantize
from fewbits.passes.rewrite import Rewriter, as_array, operator_of
from fewbits.targets.mcu.integer import to_integer
from onnx import helper, numpy_helper

RNG = np.random.default_rng(3)
node = helper.make_node


@pytest.fixture(scope="module")
def float_module():
    """Coarse weights: a few large ones per channel leave few steps for the others."""

    def weights(*shape):
        values = RNG.standard_normal(shape) ** 7
        return (values / np.abs(values).max()).astype("float32")

    constants = {
        "w1": weights(6, 3, 3, 3), "b1": weights(6), "w2": weights(6, 1, 3, 3), "b2": weights(6),
        "w3": weights(6, 5), "b3": weights(5),
    }  # fmt: skip
    nodes = [
        node("Conv", ["x", "w1", "b1"], ["c1"], "conv", pads=[1, 1, 1, 1]),
        node("Relu", ["c1"], ["r1"], "relu"),
        node("Conv", ["r1", "w2", "b2"], ["c2"], "depthwise", pads=[1, 1, 1, 1], group=6),
        node("GlobalAveragePool", ["c2"], ["p"], "pool"),
        node("Flatten", ["p"], ["f"], "flatten"),
        node("Gemm", ["f", "w3", "b3"], ["y"], "dense"),
    ]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", 1, [1, 3, 8, 8])],
        [helper.make_tensor_value_info("y", 1, [1, 5])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    return canonicalize(import_onnx(model).module)


@pytest.fixture
def context():
    samples = np.abs(RNG.standard_normal((40, 3, 8, 8))).astype("float32")
    return PassContext(calibration=Calibration(lambda: [{"x": samples}], "test", chunk=16))


def channel_means(module, context, names):
    totals, counts = dict.fromkeys(names, 0.0), dict.fromkeys(names, 0)
    for values in context.calibration.run(module, names):
        for name in names:
            data = values[name]
            rows = np.moveaxis(data, 2, -1) if data.ndim == 5 else data
            rows = rows.reshape(-1, rows.shape[-1])
            totals[name] = totals[name] + rows.sum(0, dtype=float)
            counts[name] += len(rows)
    return {name: totals[name] / counts[name] for name in names}


def bias_steps(module):
    """What one step of each layer's bias is worth, per channel, by the name of the sum."""
    rewriter = Rewriter(module)
    steps = {}
    for var, value in rewriter.bindings:
        for other in value.args if operator_of(value) == "relax.add" else ():
            bias = rewriter.values.get(other)
            if operator_of(bias) == "relax.dequantize" and bias.args[0].ty.dtype == "int32":
                steps[var.name] = as_array(bias.args[1])
    return steps


def test_means_are_those_of_the_float_module(float_module, context):
    quantized = Quantize().apply(float_module, context)
    assert context.reference is float_module
    corrected = BiasCorrection().apply(quantized, context)
    steps = bias_steps(quantized)
    assert list(steps) == ["conv", "depthwise", "dense"]
    wanted = channel_means(float_module, context, steps)
    before = channel_means(quantized, context, steps)
    after = channel_means(corrected, context, steps)
    for name, step in steps.items():
        assert (np.abs(before[name] - wanted[name]) > 2 * step).any()
        assert (np.abs(after[name] - wanted[name]) <= 0.51 * step).all()
    assert context.notes[-1].data["layers"] == 3


def test_only_biases_change(float_module, context):
    quantized = Quantize().apply(float_module, context)
    corrected = BiasCorrection().apply(quantized, context)
    pairs = zip(Rewriter(quantized).bindings, Rewriter(corrected).bindings, strict=True)
    changed = []
    for (var, old), (other, new) in pairs:
        assert var.name == other.name and operator_of(old) == operator_of(new)
        if operator_of(old) == "relax.dequantize" and hasattr(old.args[0], "value"):
            same = np.array_equal(as_array(old.args[0]), as_array(new.args[0]))
            changed += [] if same else [as_array(old.args[0]).dtype]
            assert np.array_equal(as_array(old.args[1]), as_array(new.args[1]))
    assert len(changed) == 3 and set(changed) == {np.dtype("int32")}
    assert {str(v.ty.dtype) for v, _ in Rewriter(to_integer(corrected).module).bindings} == {"int8"}


def test_layers_can_be_left_out(float_module, context):
    quantized = Quantize().apply(float_module, context)
    corrected = BiasCorrection(ignore=("conv2d",)).apply(quantized, context)
    assert context.notes[-1].data["layers"] == 1
    assert corrected is not quantized


def test_a_quantized_model_is_left_alone(float_module, context):
    quantized = Quantize().apply(float_module, context)
    fresh = PassContext()
    assert BiasCorrection().apply(Quantize().apply(quantized, fresh), fresh) is quantized
    assert "came quantized" in fresh.notes[-1].message


def test_without_calibration(float_module, context):
    quantized = Quantize().apply(float_module, context)
    with pytest.raises(FewbitsError) as error:
        BiasCorrection().apply(quantized, PassContext(reference=float_module))
    assert error.value.code == "no-calibration"


def test_text_form():
    assert str(make_pass("bias-correction{ignore=[dense]}")) == "bias-correction{ignore=[dense]}"
