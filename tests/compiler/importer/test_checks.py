"""Bad models are refused with a code, the place and a hint; never with a traceback."""

import numpy as np
import onnx
import pytest
from fewbits.compiler.importer import import_onnx
from fewbits.errors import FewbitsError
from onnx import TensorProto, helper, numpy_helper

FLOAT = TensorProto.FLOAT


def model(nodes, weights=(), inputs=(("x", (1, 4)),), outputs=("y",), opset=17, functions=()):
    graph = helper.make_graph(
        list(nodes),
        "graph",
        [helper.make_tensor_value_info(name, FLOAT, shape) for name, shape in inputs],
        [helper.make_tensor_value_info(name, FLOAT, None) for name in outputs],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in weights],
    )
    opsets = [helper.make_opsetid("", opset)] if opset else []
    return helper.make_model(graph, opset_imports=opsets, functions=functions)


def relu():
    return model([helper.make_node("Relu", ["x"], ["y"], "act")])


def refused(source, **options):
    with pytest.raises(FewbitsError) as caught:
        import_onnx(source, **options)
    return caught.value


# -- files ---------------------------------------------------------------------------------------


def test_missing_file(tmp_path):
    assert refused(tmp_path / "none.onnx").code == "file-not-found"


def test_folder_instead_of_file(tmp_path):
    assert refused(tmp_path).code == "file-not-found"


@pytest.mark.parametrize("data", [b"", b"hello world, this is text", b"\x00" * 64, b"PK\x03\x04"])
def test_not_onnx(data, tmp_path):
    path = tmp_path / "m.onnx"
    path.write_bytes(data)
    assert refused(path).code == "not-onnx"


def test_every_truncation_is_refused():
    data = relu().SerializeToString()
    for length in range(len(data)):
        error = refused(data[:length])
        assert error.code in {"truncated-model", "not-onnx", "unknown-opset"}
    weights = [("w", np.ones((64, 64), "float32"))]
    large = model([helper.make_node("MatMul", ["x", "w"], ["y"])], weights, [("x", (1, 64))])
    data = large.SerializeToString()
    assert refused(data[: len(data) // 2]).code == "truncated-model"


# -- versions and operators ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("opset", "code"), [(0, "unknown-opset"), (6, "opset-too-old"), (999, "opset-too-new")]
)
def test_opset(opset, code):
    node = helper.make_node("BatchNormalization", ["x", "s", "b", "m", "v"], ["y"])
    weights = [(name, np.ones(4, "float32")) for name in "sbmv"]
    error = refused(model([node], weights, opset=opset))
    assert error.code == code
    assert error.hint


def test_old_opset_is_fine_where_operators_did_not_change():
    assert import_onnx(model([helper.make_node("Sigmoid", ["x"], ["y"])], opset=9)).module


def test_all_unsupported_operators_in_one_error():
    nodes = [
        helper.make_node("Det", ["x"], ["a"], "first"),
        helper.make_node("Det", ["a"], ["b"], "second"),
        helper.make_node("LSTM", ["b", "b", "b"], ["c"]),
        helper.make_node("If", ["c"], ["y"], "branch"),
    ]
    error = refused(model(nodes))
    assert error.code == "unsupported-operator"
    assert "3 unsupported operators" in error.message
    assert "Det (2: 'first', 'second')" in error.message
    assert "LSTM (1: 'c') - recurrent operators come later" in error.message
    assert "If (1: 'branch') - operators with subgraphs" in error.message


def test_unused_nodes_do_not_matter():
    nodes = [helper.make_node("Det", ["x"], ["a"]), helper.make_node("Relu", ["x"], ["y"])]
    assert import_onnx(model(nodes)).module


def test_unknown_domain():
    error = refused(model([helper.make_node("Magic", ["x"], ["y"], "spell", domain="hogwarts")]))
    assert error.code == "unknown-domain"
    assert "'spell'" in error.where


def test_foreign_operator_of_imported_domain():
    proto = model([helper.make_node("Magic", ["x"], ["y"], domain="hogwarts")])
    proto.opset_import.append(helper.make_opsetid("hogwarts", 1))
    error = refused(proto)
    assert error.code == "unsupported-operator"
    assert "hogwarts:Magic" in error.message


# -- the graph -----------------------------------------------------------------------------------


def test_no_outputs():
    assert refused(model([], outputs=())).code == "no-outputs"


def test_output_that_nothing_computes():
    error = refused(model([helper.make_node("Relu", ["x"], ["z"])]))
    assert error.code == "undefined-value"
    assert "'y'" in error.message


def test_input_that_nothing_computes():
    error = refused(model([helper.make_node("Add", ["x", "ghost"], ["y"], "sum")]))
    assert error.code == "undefined-value"
    assert "'ghost'" in error.message and "'sum'" in error.where


def test_cycle():
    nodes = [
        helper.make_node("Add", ["x", "b"], ["a"], "one"),
        helper.make_node("Relu", ["a"], ["b"], "two"),
        helper.make_node("Relu", ["b"], ["y"], "three"),
    ]
    assert refused(model(nodes)).code == "cyclic-graph"


def test_nodes_out_of_order_are_sorted():
    nodes = [helper.make_node("Relu", ["a"], ["y"]), helper.make_node("Neg", ["x"], ["a"])]
    assert import_onnx(model(nodes)).outputs[0].shape == (1, 4)


@pytest.mark.parametrize(
    "nodes",
    [
        [helper.make_node("Relu", ["x"], ["y"]), helper.make_node("Neg", ["x"], ["y"])],
        [helper.make_node("Relu", ["x"], ["x"]), helper.make_node("Neg", ["x"], ["y"])],
    ],
)
def test_value_computed_twice(nodes):
    assert refused(model(nodes)).code == "duplicate-value"


def test_duplicate_outputs():
    proto = model([helper.make_node("Relu", ["x"], ["y"])], outputs=("y", "y"))
    assert refused(proto).code == "duplicate-value"


def test_function_that_calls_itself():
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("mine", 1)]
    body = [helper.make_node("F", ["a"], ["b"], domain="mine")]
    function = helper.make_function("mine", "F", ["a"], ["b"], body, opsets)
    proto = model([helper.make_node("F", ["x"], ["y"], domain="mine")], functions=[function])
    proto.opset_import.append(helper.make_opsetid("mine", 1))
    assert refused(proto).code == "invalid-function"


# -- inputs --------------------------------------------------------------------------------------


def test_unknown_rank():
    assert refused(model([helper.make_node("Relu", ["x"], ["y"])], inputs=[("x", None)])).code == (
        "unknown-rank"
    )


def test_string_input():
    proto = relu()
    proto.graph.input[0].type.tensor_type.elem_type = TensorProto.STRING
    error = refused(proto)
    assert error.code == "unsupported-dtype"
    assert "string" in error.message


def test_sequence_input():
    proto = relu()
    proto.graph.input[0].type.sequence_type.elem_type.tensor_type.elem_type = FLOAT
    assert refused(proto).code == "unsupported-dtype"


def test_unbound_dimension_names_the_option():
    error = refused(model([helper.make_node("Relu", ["x"], ["y"])], inputs=[("x", ("N", "T"))]))
    assert error.code == "unbound-dimension"
    assert "'T'" in error.message and "--bind T=" in error.hint


def test_batch_is_one_unless_bound():
    proto = model([helper.make_node("Relu", ["x"], ["y"])], inputs=[("x", ("N", 4))])
    imported = import_onnx(proto)
    assert imported.inputs[0].shape == (1, 4)
    assert any("'N'" in note for note in imported.notes)
    bound = import_onnx(proto, bind={"N": 3})
    assert bound.inputs[0].shape == bound.outputs[0].shape == (3, 4)
    assert not bound.notes


def test_a_dimension_has_one_size_everywhere():
    node = helper.make_node("MatMul", ["x", "z"], ["y"])
    imported = import_onnx(model([node], inputs=[("x", (5, "N")), ("z", ("N", 4))]))
    assert imported.inputs[0].shape == (5, 1)


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"bind": {"Q": 3}}, "unknown-dimension"),
        ({"bind": {"N": 0}}, "invalid-shape"),
        ({"shapes": {"z": (1, 4)}}, "unknown-input"),
        ({"shapes": {"x": (1, 2, 3)}}, "invalid-shape"),
        ({"shapes": {"x": (1, 5)}}, "invalid-shape"),
        ({"shapes": {"x": (-1, 4)}}, "invalid-shape"),
        ({"constants": {"z": np.zeros(1)}}, "unknown-input"),
        ({"bind": {"N": 2**40}}, "tensor-too-large"),
    ],
)
def test_wrong_options(options, code):
    proto = model([helper.make_node("Relu", ["x"], ["y"])], inputs=[("x", ("N", 4))])
    assert refused(proto, **options).code == code


def test_empty_input():
    proto = model([helper.make_node("Relu", ["x"], ["y"])], inputs=[("x", (1, 0))])
    assert refused(proto).code == "empty-tensor"


# -- weights -------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("operator", ["MatMul", "Gemm"])
def test_weights_that_are_not_numbers(bad, operator):
    weights = np.ones((4, 4), "float32")
    weights[1, 2] = bad
    error = refused(model([helper.make_node(operator, ["x", "w"], ["y"], "fc")], [("w", weights)]))
    assert error.code == "not-finite"
    assert "'w'" in error.message and "1 of 16" in error.message and "'fc'" in error.where


def test_infinite_bounds_and_masks_are_fine():
    nodes = [
        helper.make_node("Clip", ["x", "low", "high"], ["a"]),
        helper.make_node("Add", ["a", "mask"], ["b"]),
        helper.make_node("Softmax", ["b"], ["y"]),
    ]
    weights = [
        ("low", np.float32(0)),
        ("high", np.float32(np.inf)),
        ("mask", np.array([0, 0, -np.inf, -np.inf], "float32")),
    ]
    assert import_onnx(model(nodes, weights)).module


def weighted(**changes):
    proto = model([helper.make_node("Add", ["x", "w"], ["y"])], [("w", np.ones((1, 4), "float32"))])
    tensor = proto.graph.initializer[0]
    for name, value in changes.items():
        if name == "dims":
            del tensor.dims[:]
            tensor.dims.extend(value)
        else:
            setattr(tensor, name, value)
    return proto


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"dims": [1, 5]}, "invalid-tensor"),
        ({"dims": [-1, 4]}, "invalid-shape"),
        ({"dims": [2**40, 2**40]}, "tensor-too-large"),
        ({"dims": [2**33]}, "tensor-too-large"),
        ({"raw_data": b""}, "invalid-tensor"),
        ({"data_type": 99}, "unsupported-dtype"),
        ({"data_type": 0}, "unsupported-dtype"),
        ({"data_type": TensorProto.STRING}, "unsupported-dtype"),
    ],
)
def test_tensor_that_contradicts_itself(changes, code):
    assert refused(weighted(**changes)).code == code


# -- sizes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("operator", "shape", "code"),
    [
        ("ConstantOfShape", [2**20, 2**20], "tensor-too-large"),
        ("ConstantOfShape", [-3], "invalid-shape"),
        ("Expand", [2**20, 2**15, 4], "tensor-too-large"),
        ("Tile", [2**20, 2**20], "tensor-too-large"),
    ],
)
def test_sizes_are_checked_before_allocation(operator, shape, code):
    shape = np.array(shape, "int64")
    if operator == "ConstantOfShape":
        nodes = [
            helper.make_node(operator, ["s"], ["c"]),
            helper.make_node("Add", ["x", "c"], ["y"]),
        ]
    else:
        nodes = [helper.make_node(operator, ["x", "s"], ["y"])]
    assert refused(model(nodes, [("s", shape)])).code == code


@pytest.mark.parametrize("operator", ["Expand", "Tile"])
def test_sizes_of_folded_values_are_checked(operator):
    nodes = [
        helper.make_node(operator, ["w", "s"], ["c"]),
        helper.make_node("Add", ["x", "c"], ["y"]),
    ]
    weights = [("w", np.ones((1, 1), "float32")), ("s", np.array([2**20, 2**20], "int64"))]
    assert refused(model(nodes, weights)).code == "tensor-too-large"


def test_padding_of_absurd_size():
    node = helper.make_node("Pad", ["x", "p"], ["y"])
    pads = np.array([0, 0, 2**30, 2**30], "int64")
    assert refused(model([node], [("p", pads)])).code == "tensor-too-large"


def test_range_of_absurd_length():
    nodes = [
        helper.make_node("Range", ["a", "b", "c"], ["r"]),
        helper.make_node("Add", ["x", "r"], ["y"]),
    ]
    weights = [(name, np.float32(value)) for name, value in (("a", 0), ("b", 1e12), ("c", 1))]
    assert refused(model(nodes, weights)).code == "tensor-too-large"


def test_operands_that_do_not_fit():
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"], "fc")]
    error = refused(model(nodes, [("w", np.ones((3, 3), "float32"))]))
    assert error.code == "invalid-node"
    assert error.where == "node 'fc' (MatMul)"


def test_run_time_shape():
    node = helper.make_node("Reshape", ["x", "s"], ["y"], "reshape")
    proto = model([node], inputs=[("x", (1, 4)), ("s", (2,))])
    proto.graph.input[1].type.tensor_type.elem_type = TensorProto.INT64
    error = refused(proto)
    assert error.code == "dynamic-argument"
    assert "'s'" in error.message


def test_the_given_model_is_not_changed():
    proto = model([helper.make_node("Relu", ["x"], ["y"])], inputs=[("x", ("N", 4))])
    before = proto.SerializeToString()
    import_onnx(proto, bind={"N": 2})
    assert proto.SerializeToString() == before
    assert isinstance(proto, onnx.ModelProto)
