"""Whatever the bytes: either a module or a FewbitsError."""

import numpy as np
import onnx
import pytest
from fewbits.compiler.importer import ImportedModel, import_onnx
from fewbits.errors import FewbitsError
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

MANY = settings(max_examples=300, deadline=None, derandomize=True)


def small_model():
    """Some of everything: weights, attributes of each type, a shape program, two outputs."""
    random = np.random.default_rng(0)
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["a"], "conv", pads=[1, 1, 1, 1], group=2),
        helper.make_node("BatchNormalization", ["a", "s", "s", "s", "s"], ["n"], epsilon=0.5),
        helper.make_node("Relu", ["n"], ["r"]),
        helper.make_node("MaxPool", ["r"], ["p"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Shape", ["p"], ["shape"]),
        helper.make_node("Gather", ["shape", "zero"], ["batch"], axis=0),
        helper.make_node("Concat", ["batch", "minus"], ["target"], axis=0),
        helper.make_node("Reshape", ["p", "target"], ["f"]),
        helper.make_node("Gemm", ["f", "m"], ["g"], transB=1, alpha=0.5),
        helper.make_node("Split", ["g"], ["y", "h"], axis=1),
        helper.make_node("Pad", ["h", "pads"], ["z"], mode="reflect"),
    ]
    weights = {
        "w": random.normal(size=(4, 1, 3, 3)).astype("float32"),
        "b": np.ones(4, "float32"),
        "s": np.ones(4, "float32"),
        "zero": np.array([0]),
        "minus": np.array([-1]),
        "m": random.normal(size=(4, 36)).astype("float32"),
        "pads": np.array([0, 1, 0, 0]),
    }
    graph = helper.make_graph(
        nodes,
        "fuzz",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ("N", 2, 6, 6))],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("y", "z")],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])


MODEL = small_model()
BYTES = MODEL.SerializeToString()


def survives(source):
    try:
        assert isinstance(import_onnx(source), ImportedModel)
    except FewbitsError as error:
        assert error.code and error.message


def test_the_model_itself_is_fine():
    imported = import_onnx(BYTES)
    assert [info.shape for info in imported.outputs] == [(1, 2), (1, 3)]


@MANY
@given(st.lists(st.tuples(st.integers(0, len(BYTES) - 1), st.integers(0, 255)), max_size=4))
def test_changed_bytes(changes):
    data = bytearray(BYTES)
    for position, value in changes:
        data[position] = value
    survives(bytes(data))


@MANY
@given(st.integers(0, len(BYTES)), st.integers(0, len(BYTES)), st.binary(max_size=8))
def test_cut_and_inserted_bytes(start, stop, middle):
    survives(BYTES[:start] + middle + BYTES[stop:])


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.binary(max_size=200))
def test_any_bytes(data):
    survives(data)


NUMBERS = st.one_of(
    st.integers(-3, 9), st.sampled_from([-(2**63), 2**31, 2**40, 2**63 - 1, -(2**31)])
)


@MANY
@given(st.data())
def test_changed_fields(data):
    model = onnx.ModelProto()
    model.CopyFrom(MODEL)
    for _ in range(data.draw(st.integers(1, 3))):
        node = model.graph.node[data.draw(st.integers(0, len(model.graph.node) - 1))]
        tensor = model.graph.initializer[data.draw(st.integers(0, 6))]
        what = data.draw(st.sampled_from(["attribute", "input", "output", "dims", "type", "value"]))
        if what == "attribute" and node.attribute:
            attribute = node.attribute[data.draw(st.integers(0, len(node.attribute) - 1))]
            if attribute.ints:
                attribute.ints[0] = data.draw(NUMBERS)
            attribute.i = data.draw(NUMBERS)
            attribute.type = data.draw(st.sampled_from([attribute.type, 1, 2, 3, 4, 5, 7]))
        elif what == "input" and node.input:
            names = ["", "x", "a", "w", "zero", "target", "y", "nothing"]
            node.input[0] = data.draw(st.sampled_from(names))
        elif what == "output":
            node.output[0] = data.draw(st.sampled_from(["", "x", "r", "other"]))
        elif what == "dims" and tensor.dims:
            tensor.dims[0] = data.draw(NUMBERS)
        elif what == "type":
            tensor.data_type = data.draw(st.integers(0, 30))
        elif what == "value":
            size = len(tensor.raw_data) // 8
            tensor.raw_data = np.array([data.draw(NUMBERS)] * size, "int64").tobytes()
    survives(model)


@pytest.mark.parametrize("opset", range(1, onnx.defs.onnx_opset_version() + 1))
def test_every_opset(opset):
    model = onnx.ModelProto()
    model.CopyFrom(MODEL)
    model.opset_import[0].version = opset
    survives(model)
