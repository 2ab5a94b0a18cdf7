"""Convolution, pooling and resizing of random geometry agree with onnxruntime."""

import numpy as np
import onnxruntime
import pytest
import torch
from fewbits.compiler.importer import import_onnx
from fewbits.ops.evaluate import Evaluator
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

onnxruntime.set_default_logger_severity(4)
FEW = settings(
    max_examples=40,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow],
)


def one_node(node, shape, weights, opset):
    graph = helper.make_graph(
        [node],
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(array, name) for name, array in weights],
    )
    opsets = [helper.make_opsetid("", opset)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=9)


def reference(model, x):
    options = {"providers": ["CPUExecutionProvider"]}
    session = onnxruntime.InferenceSession(model.SerializeToString(), **options)
    return session.run(None, {"x": x})[0]


def compare(model, x, wanted):
    imported = import_onnx(model)
    actual = Evaluator(imported.module)({"x": torch.from_numpy(x)})["y"].numpy()
    assert actual.shape == wanted.shape == imported.outputs[0].shape
    np.testing.assert_allclose(actual, wanted, rtol=1e-4, atol=1e-5)


def agree(node, shape, weights=(), opset=19):
    """Import a one-node model, or assume it away where onnxruntime refuses it."""
    model = one_node(node, shape, weights, opset)
    x = np.random.default_rng(0).normal(size=shape).astype("float32")
    try:
        wanted = reference(model, x)
    except Exception:  # the geometry is not a valid one
        assume(False)
        raise
    assume(wanted.size and np.isfinite(wanted).all())
    compare(model, x, wanted)


def numbers(low, high, count):
    return st.lists(st.integers(low, high), min_size=count, max_size=count)


@st.composite
def windows(draw, rank=None, auto=True):
    """Attributes that convolution and pooling share, and the spatial extents."""
    rank = rank or draw(st.integers(1, 2))
    attributes = {"strides": draw(numbers(1, 3, rank))}
    kernel = draw(numbers(1, 3, rank))
    mode = draw(
        st.sampled_from(["pads", "SAME_UPPER", "SAME_LOWER", "VALID"][: None if auto else 1])
    )
    if mode == "pads":
        attributes["pads"] = [
            min(p, k - 1) for p, k in zip(draw(numbers(0, 2, 2 * rank)), kernel * 2, strict=True)
        ]
        attributes["dilations"] = draw(numbers(1, 2, rank))
    else:
        attributes["auto_pad"] = mode
    return kernel, draw(numbers(4, 8, rank)), attributes


@FEW
@given(windows(), st.sampled_from([(1, 1), (2, 3), (2, 1), (4, 1)]), st.booleans())
def test_convolution(shape, channels, bias):
    kernel, extent, attributes = shape
    groups, factor = channels
    random = np.random.default_rng(1)
    count = 2 * groups * factor
    weights = [("w", random.normal(size=(count, 2, *kernel)).astype("float32"))]
    weights += [("b", random.normal(size=count).astype("float32"))] if bias else []
    inputs = ["x", *(name for name, _ in weights)]
    node = helper.make_node("Conv", inputs, ["y"], group=groups, **attributes)
    agree(node, (1, 2 * groups, *extent), weights)


@FEW
@given(windows(auto=False), st.sampled_from([1, 2]), numbers(0, 2, 2), st.booleans())
def test_transposed_convolution(shape, groups, extra, fixed):
    kernel, extent, attributes = shape
    rank = len(kernel)
    if fixed:
        attributes.pop("pads")
        attributes["output_shape"] = [
            e * s for e, s in zip(extent, attributes["strides"], strict=True)
        ]
    else:
        attributes["output_padding"] = [
            min(more, s - 1) for more, s in zip(extra, attributes["strides"], strict=False)
        ][:rank]
    random = np.random.default_rng(1)
    weights = [("w", random.normal(size=(2 * groups, 3, *kernel)).astype("float32"))]
    node = helper.make_node("ConvTranspose", ["x", "w"], ["y"], group=groups, **attributes)
    agree(node, (1, 2 * groups, *extent), weights)


@FEW
@given(
    windows(),
    st.sampled_from(["MaxPool", "AveragePool", "LpPool"]),
    st.booleans(),
    st.booleans(),
)
def test_pooling(shape, operator, ceil, include):
    kernel, extent, attributes = shape
    if "auto_pad" in attributes:
        # onnxruntime crops the image where windows are smaller than strides; TensorFlow, where
        # the rule comes from, and ONNX's convolution never do.
        assume(all(k >= s for k, s in zip(kernel, attributes["strides"], strict=True)))
    if "pads" in attributes and operator != "LpPool":
        attributes["ceil_mode"] = int(ceil)
    if operator == "AveragePool":
        attributes["count_include_pad"] = int(include)
    node = helper.make_node(operator, ["x"], ["y"], kernel_shape=kernel, **attributes)
    agree(node, (1, 3, *extent))


COORDINATES = ["half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel"]


@FEW
@given(
    st.sampled_from(["nearest", "linear", "cubic"]),
    st.sampled_from(COORDINATES),
    st.sampled_from(["floor", "ceil", "round_prefer_floor", "round_prefer_ceil"]),
    numbers(1, 9, 2),
    numbers(2, 6, 2),
    st.booleans(),
)
def test_resizing(mode, coordinates, rounding, sizes, extent, antialias):
    attributes = {"mode": mode, "coordinate_transformation_mode": coordinates}
    if mode == "nearest":
        attributes["nearest_mode"] = rounding
    elif antialias and coordinates == "half_pixel":
        attributes["antialias"] = 1
    node = helper.make_node("Resize", ["x", "", "", "s"], ["y"], **attributes)
    agree(node, (1, 2, *extent), [("s", np.array([1, 2, *sizes], "int64"))])


@FEW
@given(
    st.lists(st.tuples(*[st.integers(-7, 7)] * 2, st.sampled_from([-3, -2, -1, 1, 2])), max_size=2)
)
def test_slicing(slices):
    starts, ends, steps = (np.array([s[i] for s in slices], "int64") for i in range(3))
    weights = [("a", starts), ("b", ends), ("c", np.arange(len(slices))), ("d", steps)]
    agree(helper.make_node("Slice", ["x", "a", "b", "c", "d"], ["y"]), (5, 4), weights)


@FEW
@given(
    st.sampled_from(["constant", "reflect", "edge", "wrap"]),
    st.lists(st.integers(-1, 3), min_size=4, max_size=4),
)
def test_padding(mode, pads):
    assume(mode == "constant" or min(pads) >= 0)
    node = helper.make_node("Pad", ["x", "p"], ["y"], mode=mode)
    agree(node, (4, 5), [("p", np.array(pads, "int64"))])


@pytest.mark.parametrize("opset", [11, 12, 13, 17])
@pytest.mark.parametrize("operator", ["Softmax", "LogSoftmax"])
@pytest.mark.parametrize("axis", [None, 0, 1, 2, -1])
def test_softmax_of_every_opset(opset, operator, axis):
    attributes = {} if axis is None else {"axis": axis}
    node = helper.make_node(operator, ["x"], ["y"], **attributes)
    model = one_node(node, (2, 3, 4), (), opset)
    x = np.random.default_rng(0).normal(size=(2, 3, 4)).astype("float32")
    compare(model, x, reference(model, x))


@FEW
@given(st.floats(0.5, 2), st.floats(0.5, 2), st.booleans(), st.booleans())
def test_general_matrix_product(alpha, beta, left, right):
    random = np.random.default_rng(1)
    b = random.normal(size=(5, 3) if right else (3, 5)).astype("float32")
    node = helper.make_node(
        "Gemm", ["x", "b", "c"], ["y"], alpha=alpha, beta=beta, transA=left, transB=right
    )
    weights = [("b", b), ("c", random.normal(size=5).astype("float32"))]
    agree(node, (3, 2) if left else (2, 3), weights)
