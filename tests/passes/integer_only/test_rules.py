"""Every rule gives the QDQ module's own codes, within one step, in integers only.

The two may differ by rounding: QDQ form divides a float by the output's scale and rounds half to
even, we multiply an integer and shift, half upwards.
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
from fewbits.passes.channels_last import channels_last
from fewbits.passes.integer_only import integer_only
from fewbits.passes.interface import integer_interface
from fewbits.passes.quantize.quantize import Quantize
from fewbits.passes.rewrite import Rewriter, operator_of
from onnx import TensorProto, helper, numpy_helper
from tvm import relax

RNG = np.random.default_rng(11)
IMAGE = (1, 6, 7, 5)


def node(kind, inputs, outputs="y", **attributes):
    return helper.make_node(kind, inputs.split(), outputs.split(), outputs, **attributes)


def floats(*shape, scale=0.4):
    return (RNG.standard_normal(shape) * scale).astype("float32")


def numbers(*values, dtype="int64"):
    return np.array(values, dtype)


def qdq_module(nodes, constants, shapes, **options):
    """The quantized module and the samples it was calibrated on; inputs are a, b, ..."""
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in shapes.items()],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in nodes[-1].output],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    opsets = [helper.make_opsetid("", 17)]
    imported = import_onnx(helper.make_model(graph, opset_imports=opsets, ir_version=9))
    samples = {n: RNG.standard_normal((12, *s[1:])).astype("float32") for n, s in shapes.items()}
    context = PassContext(calibration=Calibration(lambda: [samples], "test"))
    module = canonicalize(imported.module)
    return Quantize(**options).apply(module, context), samples


def evaluate(module, inputs, names=None):
    """Outputs for samples along the first axis; `inputs` in the order of the parameters."""
    evaluator = Evaluator(module)
    named = dict(zip(evaluator.input_names, inputs, strict=True))
    (values,) = evaluator.batched(named, chunk=len(inputs[0]))
    return [values[name].numpy() for name in evaluator.output_names]


def operators(module):
    return [op for _, value in Rewriter(module).bindings if (op := operator_of(value))]


def check(nodes, constants, shapes, most=1.0, **options):
    """Compare QDQ, integer and channels-last form; gives the last module's operators."""
    qdq, samples = qdq_module(nodes, constants, shapes, **options)
    want = evaluate(qdq, list(samples.values()))
    integer, interface = integer_interface(integer_only(qdq))
    assert all(meaning is not None for meaning in (*interface.inputs, *interface.outputs))
    assert not {"relax.quantize", "relax.dequantize"} & set(operators(integer)), operators(integer)
    codes = [
        np.clip(np.rint(array / np.float32(scale)) + zero, -128, 127).astype("int8")
        for array, (scale, zero) in zip(samples.values(), interface.inputs, strict=True)
    ]
    got = evaluate(integer, codes)
    for output, wanted, (scale, zero) in zip(got, want, interface.outputs, strict=True):
        steps = np.rint(wanted / np.float32(scale)) + zero
        assert output.dtype == np.int8 and output.shape == wanted.shape
        assert np.abs(output - steps).max() <= most
        assert (output != steps).mean() <= 0.05  # a tie now and then
        assert len(np.unique(output)) > 3, "the case says nothing"
    last = channels_last(integer)
    for output, wanted in zip(evaluate(last, codes), got, strict=True):
        np.testing.assert_array_equal(output, wanted)
    return operators(last)


def after_another(nodes):
    """The nodes behind a table: what only moves values is left alone where nothing is computed."""
    for one in nodes:
        one.input[:] = ["neg" if name == "a" else name for name in one.input]
    return [node("Neg", "a", "neg"), *nodes]


A = {"a": IMAGE}
ROWS = {"a": (1, 5, 9)}


# -- multiply-accumulate ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("weight", "attributes"),
    [
        ((4, 6, 3, 3), {}),
        ((4, 6, 3, 2), {"strides": [2, 1], "pads": [1, 0, 2, 1]}),
        ((4, 6, 2, 3), {"dilations": [2, 2], "pads": [2, 1, 0, 3]}),
        ((6, 1, 3, 3), {"group": 6, "pads": [1, 1, 1, 1]}),
        ((12, 1, 3, 3), {"group": 6, "strides": [2, 2]}),
        ((4, 3, 1, 1), {"group": 2}),
        ((5, 6, 7, 5), {}),
        ((3, 6, 3, 3), {"auto_pad": "SAME_UPPER", "strides": [2, 2]}),
    ],
)
def test_conv2d(weight, attributes):
    constants = {"w": floats(*weight), "c": floats(weight[0])}
    nodes = [node("Conv", "a w c", **attributes)]
    assert operators_without_layout(check(nodes, constants, A)) == ["fewbits.conv2d"]
    relu = [node("Conv", "a w c", "t", **attributes), node("Relu", "t")]
    assert operators_without_layout(check(relu, constants, A)) == ["fewbits.conv2d"]


def operators_without_layout(found):
    return [op for op in found if op not in ("relax.permute_dims", "relax.reshape")]


def test_conv2d_clipped():
    nodes = [node("Conv", "a w", "t"), node("Clip", "t low high")]
    constants = {"w": floats(4, 6, 3, 3), "low": np.float32(-0.3), "high": np.float32(1.1)}
    assert operators_without_layout(check(nodes, constants, A)) == ["fewbits.conv2d"]


@pytest.mark.parametrize(
    ("weight", "attributes"),
    [
        ((4, 5, 3), {"pads": [1, 1]}),
        ((4, 5, 2), {"strides": [2], "dilations": [2], "pads": [0, 3]}),
        ((5, 1, 3), {"group": 5}),
    ],
)
def test_conv1d(weight, attributes):
    constants = {"w": floats(*weight), "c": floats(weight[0])}
    nodes = [node("Conv", "a w c", **attributes)]
    assert operators_without_layout(check(nodes, constants, ROWS)) == ["fewbits.conv2d"]


def test_per_tensor_weights():
    constants = {"w": floats(4, 6, 3, 3) * np.array([1, 5, 0.2, 1]).reshape(-1, 1, 1, 1)}
    constants["w"] = constants["w"].astype("float32")
    check([node("Conv", "a w")], constants, A, strategy="tensor")


@pytest.mark.parametrize("observer", ["minmax", "moving", "percentile", "mse", "entropy"])
@pytest.mark.parametrize("symmetric", [False, True])
def test_observers_and_symmetry(observer, symmetric):
    constants = {"w": floats(4, 6, 3, 3), "c": floats(4)}
    nodes = [node("Conv", "a w c", "t"), node("Relu", "t")]
    options = {"activation_observer": observer, "symmetric": symmetric}
    check(nodes, constants, A, weight_observer="mse", **options)


def test_faint_and_dead_channels():
    """Channels whose scale vanishes, with biases that do not."""
    weight, bias = floats(5, 6, 3, 3), floats(5, scale=2.0)
    weight[0] *= 1e-12
    weight[1] *= 1e-30
    bias[2] = 1e-9
    weight[3] *= 1e-5
    check([node("Conv", "a w c")], {"w": weight, "c": bias}, A)


@pytest.mark.parametrize("shape", [(1, 9), (1, 4, 9), (1, 2, 3, 9)])
def test_dense(shape):
    constants = {"w": floats(9, 7), "c": floats(7)}
    nodes = [node("MatMul", "a w", "t"), node("Add", "t c", "u"), node("Relu", "u")]
    assert check(nodes, constants, {"a": shape}) == ["fewbits.dense"]


def test_gemm():
    constants = {"w": floats(7, 9), "c": floats(7)}
    nodes = [node("Gemm", "a w c", transB=1, alpha=0.5, beta=2.0)]
    assert check(nodes, constants, {"a": (1, 9)}) == ["fewbits.dense"]


def test_scalar_bias_is_a_bias():
    nodes = [node("MatMul", "a w", "t"), node("Add", "t c")]
    constants = {"w": floats(9, 7), "c": np.array([0.7], "float32")}
    assert check(nodes, constants, {"a": (1, 9)}) == ["fewbits.dense"]


def test_a_bias_per_row_is_no_bias():
    """[1, 4, 1] beside a product of [1, 4, 7] counts rows, not output channels."""
    nodes = [node("MatMul", "a w", "t"), node("Add", "t c")]
    constants = {"w": floats(9, 7), "c": floats(1, 4, 1)}
    assert check(nodes, constants, {"a": (1, 4, 9)}, most=2) == ["fewbits.dense", "fewbits.add"]


def test_a_bias_per_column_of_an_image_is_no_bias():
    nodes = [node("Conv", "a w", "t"), node("Add", "t c")]
    constants = {"w": floats(5, 6, 3, 3), "c": floats(3)}
    found = operators_without_layout(check(nodes, constants, A, most=2))
    assert found == ["fewbits.conv2d", "fewbits.add"]


def test_matmul():
    shapes = {"a": (1, 3, 4, 6), "b": (1, 3, 6, 5)}
    assert check([node("MatMul", "a b")], {}, shapes) == ["fewbits.matmul"]
    nodes = [node("Transpose", "a", "t", perm=[0, 2, 1]), node("MatMul", "a t")]
    assert "fewbits.matmul" in check(nodes, {}, ROWS)


# -- element by element -----------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["Add", "Sub", "Mul"])
@pytest.mark.parametrize("other", [IMAGE, (1, 6, 1, 1), (1, 1, 7, 5), (5,), (1,)])
def test_two_values(kind, other):
    if len(other) < 2:
        check([node(kind, "a c")], {"c": floats(*other)}, A)
        check([node(kind, "c a")], {"c": floats(*other)}, A)
    else:
        check([node(kind, "a b")], {}, {"a": IMAGE, "b": other})
        check([node(kind, "a b", "t"), node("Relu", "t")], {}, {"a": IMAGE, "b": other})


UNARY = ["Relu", "Sigmoid", "Tanh", "Abs", "Neg", "LeakyRelu", "Elu", "HardSigmoid", "HardSwish",
         "Softplus", "Exp", "Erf", "Floor"]  # fmt: skip


@pytest.mark.parametrize("kind", UNARY)
def test_functions_of_one_are_one_table(kind):
    assert check([node(kind, "a")], {}, A) == ["fewbits.lookup"]


def test_chains_are_one_table():
    gelu = [
        node("Div", "a r", "b"), node("Erf", "b", "c"), node("Add", "c one", "d"),
        node("Mul", "a d", "e"), node("Mul", "e half"),
    ]  # fmt: skip
    constants = {
        "r": np.float32(2**0.5), "one": np.float32(1), "half": np.float32(0.5),
    }  # fmt: skip
    assert check(gelu, constants, A) == ["fewbits.lookup"]
    silu = [node("Sigmoid", "a", "b"), node("Mul", "a b")]
    assert check(silu, {}, A) == ["fewbits.lookup"]
    hardswish = [
        node("Add", "a three", "b"), node("Clip", "b zero six", "c"), node("Mul", "a c", "d"),
        node("Div", "d six"),
    ]  # fmt: skip
    constants = {"three": np.float32(3), "zero": np.float32(0), "six": np.float32(6)}
    assert check(hardswish, constants, A) == ["fewbits.lookup"]


# -- reductions -------------------------------------------------------------------------------

POOLS = [
    {"kernel_shape": [2, 2]},
    {"kernel_shape": [3, 2], "strides": [2, 1], "pads": [1, 1, 2, 0]},
    {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1},
    {"kernel_shape": [2, 3], "strides": [2, 2], "pads": [0, 1, 1, 1], "ceil_mode": 1},
]


@pytest.mark.parametrize("attributes", POOLS)
def test_average_pool(attributes):
    found = check([node("AveragePool", "a", **attributes)], {}, A)
    assert operators_without_layout(found) == ["fewbits.average_pool2d"]


@pytest.mark.parametrize("attributes", POOLS[:2])
def test_average_pool_that_counts_padding(attributes):
    check([node("AveragePool", "a", count_include_pad=1, **attributes)], {}, A)


@pytest.mark.parametrize("attributes", [*POOLS, {"kernel_shape": [2, 2], "dilations": [2, 2]}])
def test_max_pool(attributes):
    found = check(after_another([node("MaxPool", "a", **attributes)]), {}, A)
    assert operators_without_layout(found) == ["fewbits.lookup", "fewbits.max_pool2d"]


def test_global_average_pool():
    found = check([node("GlobalAveragePool", "a")], {}, A)
    assert operators_without_layout(found) == ["fewbits.average_pool2d"]


@pytest.mark.parametrize("axes", [[1], [2], [3], [1, 2], [2, 3], [1, 2, 3]])
@pytest.mark.parametrize("keep", [0, 1])
def test_means(axes, keep):
    shape = {"a": (1, 6, 7, 5)} if axes != [1, 2, 3] else {"a": (1, 4, 3, 2)}
    found = check([node("ReduceMean", "a", axes=axes, keepdims=keep)], {}, shape)
    assert operators_without_layout(found) == ["fewbits.average_pool2d"]


@pytest.mark.parametrize("axis", [1, 2, 3, -1])
def test_softmax(axis):
    found = check([node("Softmax", "a", axis=axis)], {}, A)
    assert operators_without_layout(found) == ["fewbits.softmax"]


# -- movement ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("nodes", "constants"),
    [
        ([node("Transpose", "a", perm=[0, 3, 1, 2])], {}),
        ([node("Flatten", "a")], {}),
        ([node("Slice", "a s e x t")],
         {"s": numbers(1, 4), "e": numbers(6, -9), "x": numbers(2, 3), "t": numbers(2, -1)}),
        ([node("Gather", "a i", axis=2)], {"i": numbers(3, 0, 0, 6)}),
        ([node("Pad", "a p")], {"p": numbers(0, 0, 1, 2, 0, 1, 0, 1)}),
        ([node("Pad", "a p", mode="edge")], {"p": numbers(0, 0, 1, 2, 0, 1, 0, 1)}),
        ([node("Pad", "a p", mode="reflect")], {"p": numbers(0, 0, 1, 2, 0, 1, 0, 1)}),
        ([node("Unsqueeze", "a x")], {"x": numbers(2)}),
        ([node("Split", "a n", "y z", axis=1)], {"n": numbers(2, 4)}),
        ([node("Split", "a n", "y z", axis=3)], {"n": numbers(1, 4)}),
        ([helper.make_node("Resize", ["a", "", "f"], ["y"], "y", mode="nearest",
                           coordinate_transformation_mode="asymmetric", nearest_mode="floor")],
         {"f": numbers(1, 1, 2, 3, dtype="float32")}),
    ],
)  # fmt: skip
def test_movers_move_codes(nodes, constants):
    found = check(after_another(nodes), constants, A)
    assert [op for op in found if op.startswith("fewbits.")] == ["fewbits.lookup"]


def test_padding_with_what_the_input_does_not_reach():
    constants = {"p": numbers(0, 0, 1, 2, 0, 1, 0, 1), "v": np.float32(-9.0)}
    found = check(after_another([node("Pad", "a p v")]), constants, A)
    assert found.count("fewbits.lookup") == 2  # one for the result's scale


def test_concat_of_two_scales():
    nodes = [node("Softmax", "a", "s", axis=1), node("Concat", "a s", axis=1)]
    check(nodes, {}, A)


def test_concat_with_a_constant_out_of_range():
    nodes = after_another([node("Concat", "a c", axis=2)])
    check(nodes, {"c": floats(1, 6, 2, 5, scale=20.0)}, A)


def test_concat_with_itself():
    assert "relax.concat" in check(after_another([node("Concat", "a a", axis=3)]), {}, A)


def test_indices_computed_in_the_model():
    """What a mover takes besides the data is not left behind."""
    graph = helper.make_graph(
        [
            node("Relu", "a", "r"),
            node("Cast", "i", "j", to=TensorProto.INT64),
            node("Gather", "r j", axis=1),
        ],
        "g",
        [
            helper.make_tensor_value_info("a", TensorProto.FLOAT, (1, 6, 4)),
            helper.make_tensor_value_info("i", TensorProto.INT32, (1, 2)),
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
    )
    opsets = [helper.make_opsetid("", 17)]
    module = import_onnx(helper.make_model(graph, opset_imports=opsets, ir_version=9)).module
    samples = {"a": floats(4, 6, 4), "i": np.array([[0, 5], [1, 1], [2, 3], [4, 0]], "int32")}
    context = PassContext(calibration=Calibration(lambda: [samples], "test"))
    qdq = Quantize().apply(canonicalize(module), context)
    want = evaluate(qdq, list(samples.values()))
    got = evaluate(integer_only(qdq), list(samples.values()))
    np.testing.assert_allclose(got[0], want[0], atol=1e-6)


# -- what has no integer form -----------------------------------------------------------------


def test_accumulators_beyond_32_bits_stay_float():
    weight = np.sign(floats(140_000, 2))
    qdq, samples = qdq_module([node("MatMul", "a w")], {"w": weight}, {"a": (1, 140_000)})
    integer = integer_only(qdq)
    assert "fewbits.dense" not in operators(integer)
    want = evaluate(qdq, list(samples.values()))[0]
    got = evaluate(integer, list(samples.values()))[0]
    np.testing.assert_allclose(got, want, rtol=1e-3, atol=1e-3)


def test_quantize_keeps_the_modules_meaning():
    """The pass leaves its input alone, and QDQ form stays close to it."""
    nodes = [node("Conv", "a w", "t"), node("Relu", "t", "r"), node("GlobalAveragePool", "r")]
    qdq, samples = qdq_module(nodes, {"w": floats(4, 6, 3, 3)}, A)
    assert isinstance(qdq["main"], relax.Function)
    out = torch.from_numpy(evaluate(qdq, list(samples.values()))[0])
    assert torch.isfinite(out).all() and out.abs().max() > 0
