"""Float operators through quantize and integer-only: integers only, and close to the float module.

Every case is one operator (or two) between quantized values; the error is counted in steps of the
output's scale.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from fewbits.compiler.importer import import_onnx
from fewbits.ops.evaluate import Evaluator
from fewbits.passes.base import PassContext
from fewbits.passes.calibration import Calibration
from fewbits.passes.canonicalize import canonicalize
from fewbits.passes.quantize.quantize import Quantize
from fewbits.passes.rewrite import Rewriter, operator_of
from fewbits.targets.mcu.integer import to_integer
from onnx import helper, numpy_helper

RNG = np.random.default_rng(7)
IMAGE = (1, 6, 5, 7)
ROWS = (1, 9, 24)


def node(kind, inputs, **attributes):
    return helper.make_node(kind, inputs.split(), ["y"], "layer", **attributes)


def floats(*shape, scale=0.4, offset=0.0):
    return (RNG.standard_normal(shape) * scale + offset).astype("float32")


def integers(*values):
    return np.array(values, np.int64)


#: What only moves data is integer beside an integer operator.
NEGATION = helper.make_node("Neg", ["a"], ["t"], "negation")

#: name: (nodes, constants, input shapes, operator that must appear, most steps of error)
CASES = {
    "PRelu": ([node("PRelu", "a s")], {"s": floats(6, 1, 1)}, [IMAGE], "fewbits.prelu", 1.1),
    "Max of two": ([node("Max", "a b")], {}, [IMAGE, IMAGE], "relax.maximum", 1.6),
    "Min of two": ([node("Min", "a b")], {}, [IMAGE, (1, 6, 1, 1)], "relax.minimum", 1.6),
    "Max with constants": (
        [node("Max", "a c")], {"c": floats(6, 1, 1)}, [IMAGE], "relax.maximum", 1.6,
    ),
    "ReduceMax": (
        [node("ReduceMax", "a", axes=[1], keepdims=0)], {}, [IMAGE], "fewbits.max_pool2d", 1.6,
    ),
    "ReduceMin": (
        [node("ReduceMin", "a", axes=[2, 3])], {}, [IMAGE], "fewbits.max_pool2d", 1.6,
    ),
    "GlobalMaxPool": ([node("GlobalMaxPool", "a")], {}, [IMAGE], "fewbits.max_pool2d", 1.6),
    "ReduceSum": (
        [node("ReduceSum", "a x", keepdims=0)], {"x": integers(-1)}, [ROWS],
        "fewbits.average_pool2d", 1.6,
    ),
    "ReduceSum of images": (
        [node("ReduceSum", "a x")], {"x": integers(2, 3)}, [IMAGE], "fewbits.average_pool2d", 1.6,
    ),
    "LayerNormalization": (
        [node("LayerNormalization", "a g h", axis=-1)],
        {"g": floats(24, offset=1.0), "h": floats(24)}, [ROWS], "fewbits.layer_norm", 3.0,
    ),
    "MatMul with a constant on the left": (
        [node("MatMul", "w a")], {"w": floats(6, 5, 5)}, [IMAGE], "fewbits.matmul", 3.0,
    ),
    "MatMul of two and a constant": (
        [helper.make_node("MatMul", ["a", "b"], ["t"], "product"), node("Add", "t c")],
        {"c": floats(1, 4)}, [IMAGE, (1, 6, 7, 4)], "fewbits.matmul", 2.5,
    ),
    "Resize": (
        [NEGATION, node("Resize", "t n f", mode="linear")],
        {"f": np.array([1, 1, 2, 3], "float32"), "n": np.zeros(0, "float32")}, [IMAGE],
        "fewbits.resize2d", 1.6,
    ),
    "Resize down, corners aligned": (
        [NEGATION, node("Resize", "t n n s", mode="linear",
                         coordinate_transformation_mode="align_corners")],
        {"s": integers(1, 6, 3, 4), "n": np.zeros(0, "float32")}, [IMAGE],
        "fewbits.resize2d", 1.6,
    ),
}  # fmt: skip
TRANSPOSED = (
    ([2, 2], [1, 1, 1, 1], [1, 1]),
    ([1, 1], [0, 0, 0, 0], [0, 0]),
    ([3, 2], [2, 0, 2, 1], [0, 0]),
    ([2, 2], [0, 0, 0, 0], [0, 1]),
)
for strides, pads, extra in TRANSPOSED:
    CASES[f"ConvTranspose {strides} {pads} {extra}"] = (
        [node("ConvTranspose", "a w c", strides=strides, pads=pads, output_padding=extra)],
        {"w": floats(6, 4, 3, 3), "c": floats(4)},
        [IMAGE],
        "fewbits.conv2d",
        2.5,
    )


def build(nodes, constants, shapes):
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info(n, 1, s) for n, s in zip("ab", shapes, strict=False)],
        [helper.make_tensor_value_info("y", 1, None)],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    return canonicalize(import_onnx(model).module)


def quantized(module, samples):
    context = PassContext(calibration=Calibration(lambda: [samples], "test"))
    return to_integer(Quantize().apply(module, context)), context


def errors(module, integer, samples):
    """Differences from the float module in output steps, with inputs that are codes already."""
    names = list(samples)
    worst = []
    for index in range(len(samples[names[0]])):
        codes, reals = {}, {}
        for name, (scale, zero_point) in zip(names, integer.interface.inputs, strict=True):
            steps = np.rint(samples[name][index] / np.float32(scale)) + zero_point
            codes[name] = torch.from_numpy(np.clip(steps, -128, 127).astype(np.int8))
            reals[name] = (codes[name].float() - zero_point) * scale
        [expected] = Evaluator(module)(reals).values()
        [found] = Evaluator(integer.module)(codes).values()
        [(scale, zero_point)] = integer.interface.outputs
        wanted = (expected.numpy() / scale + zero_point).clip(-128, 127)
        worst.append(np.abs(found.numpy() - wanted).max())
    return max(worst)


@pytest.mark.parametrize("name", CASES)
def test_integer_form(name):
    nodes, constants, shapes, operator, limit = CASES[name]
    module = build(nodes, constants, shapes)
    samples = {n: floats(24, *s, scale=1.0) for n, s in zip("ab", shapes, strict=False)}
    integer, context = quantized(module, samples)
    bindings = Rewriter(integer.module).bindings
    assert operator in {operator_of(value) for _, value in bindings}
    assert {str(var.ty.dtype) for var, _ in bindings} == {"int8"}
    assert not [note for note in context.notes if "stays float" in note.message]
    assert errors(module, integer, samples) <= limit


def test_division():
    """The divisor's own eight bits are exact here, as the inputs are codes."""
    module = build([node("Div", "a b")], {}, [IMAGE, IMAGE])
    samples = {"a": floats(24, *IMAGE), "b": np.abs(floats(24, *IMAGE)) + 1.0}
    integer, _ = quantized(module, samples)
    assert [operator_of(v) for _, v in Rewriter(integer.module).bindings][-1] == "fewbits.divide"
    assert errors(module, integer, samples) <= 0.6


def test_division_by_zero_saturates():
    module = build([node("Div", "a b")], {}, [IMAGE, IMAGE])
    samples = {"a": floats(24, *IMAGE), "b": np.abs(floats(24, *IMAGE)) + 1.0}
    integer, _ = quantized(module, samples)
    (_, zero), (_, out_zero) = integer.interface.inputs[1], integer.interface.outputs[0]
    a = torch.full(IMAGE, 100, dtype=torch.int8)
    b = torch.full(IMAGE, zero, dtype=torch.int8)
    [found] = Evaluator(integer.module)({"a": a, "b": b}).values()
    assert (found == 127).all() and out_zero < 100


def test_grouped_transposed_convolution_stays_float():
    nodes = [node("ConvTranspose", "a w", group=2)]
    module = build(nodes, {"w": floats(6, 2, 3, 3)}, [IMAGE])
    samples = {"a": floats(24, *IMAGE)}
    _, context = quantized(module, samples)
    assert any("in groups" in note.message for note in context.notes)
