"""What the module looks like: names, interface, one dataflow block, no nested calls."""

import numpy as np
import pytest
import torch
from fewbits.compiler.importer import import_onnx
from fewbits.ops.evaluate import Evaluator
from onnx import TensorProto, helper, numpy_helper
from tvm import relax

FLOAT = TensorProto.FLOAT


def imported(nodes, weights=(), inputs=(("x", (1, 4, 6, 6)),), outputs=("y",), opset=17, **more):
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info(name, FLOAT, shape) for name, shape in inputs],
        [helper.make_tensor_value_info(name, FLOAT, None) for name in outputs],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in weights],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], **more)
    return import_onnx(model)


def bindings(result):
    function = result.module["main"]
    assert len(function.body.blocks) == 1
    assert isinstance(function.body.blocks[0], relax.DataflowBlock)
    return function.body.blocks[0].bindings


def names(result):
    return [binding.var.name for binding in bindings(result)]


def test_the_result_has_the_nodes_name_and_helpers_extend_it():
    node = helper.make_node("Conv", ["x", "w", "b"], ["y"], "stem/conv")
    weights = [("w", np.ones((2, 4, 3, 3), "float32")), ("b", np.ones(2, "float32"))]
    result = imported([node], weights)
    assert names(result) == ["stem/conv:1", "stem/conv"]
    assert [b.value.op.name for b in bindings(result)] == ["relax.nn.conv2d", "relax.add"]


def test_a_node_without_a_name_is_called_after_its_output():
    nodes = [
        helper.make_node("Relu", ["x"], ["hidden"]),
        helper.make_node("Neg", ["hidden"], ["y"]),
    ]
    assert names(imported(nodes)) == ["hidden", "y"]


def test_names_are_unique():
    nodes = [
        helper.make_node("Relu", ["x"], ["a"], "same"),
        helper.make_node("Neg", ["a"], ["b"], "same"),
        helper.make_node("Exp", ["b"], ["y"], "x"),
    ]
    assert names(imported(nodes)) == ["same", "same:1", "x:1"]


def test_several_results():
    node = helper.make_node("Split", ["x"], ["a", "b", "c"], "cut", axis=1)
    weights = [("s", np.array([1, 1, 2], "int64"))]
    node.input.append("s")
    result = imported([node], weights, outputs=("c", "a", "b"))
    found = names(result)
    assert found[1:] == ["cut", "cut:1", "cut:2"]
    assert isinstance(bindings(result)[0].value.ty, relax.TupleType)
    assert [info.shape[1] for info in result.outputs] == [2, 1, 1]
    assert [info.name for info in result.outputs] == ["c", "a", "b"]


NASTY = ['quo"te', "new\nline", "*/ comment", "int", "größe ✓", "a b", "", "%s", "\\"]


@pytest.mark.parametrize("name", [name for name in NASTY if name])
def test_any_text_is_a_name(name):
    node = helper.make_node("Relu", [name], [name + "!"], name + "?")
    result = imported([node], inputs=[(name, (1, 4))], outputs=(name + "!",))
    assert names(result) == [name + "?"]
    assert [p.name for p in result.module["main"].params] == [name]
    attributes = result.module["main"].attrs
    assert list(attributes["input_names"]) == [name]
    assert list(attributes["output_names"]) == [name + "!"]


def test_calls_are_never_nested():
    nodes = [
        helper.make_node("HardSwish", ["x"], ["a"], "act"),
        helper.make_node("Mish", ["a"], ["y"], "mish"),
    ]
    for binding in bindings(imported(nodes)):
        for argument in getattr(binding.value, "args", []):
            assert not isinstance(argument, relax.Call)


def test_identity_and_dropout_leave_nothing():
    nodes = [
        helper.make_node("Dropout", ["x"], ["a"]),
        helper.make_node("Identity", ["a"], ["b"]),
        helper.make_node("Relu", ["b"], ["c"], "act"),
        helper.make_node("Identity", ["c"], ["y"]),
    ]
    result = imported(nodes)
    assert names(result) == ["act"]
    assert [info.name for info in result.outputs] == ["y"]


def test_one_value_can_be_several_outputs_and_be_used_inside():
    nodes = [
        helper.make_node("Relu", ["x"], ["a"], "act"),
        helper.make_node("Identity", ["a"], ["b"]),
        helper.make_node("Neg", ["a"], ["y"], "neg"),
    ]
    result = imported(nodes, inputs=[("x", (3,))], outputs=("y", "a", "b"))
    values = Evaluator(result.module)({"x": torch.tensor([1.0, -2.0, 3.0])})
    assert values["a"].tolist() == values["b"].tolist() == [1, 0, 3]
    assert values["y"].tolist() == [-1, 0, -3]


def test_output_that_is_constant_is_noted():
    nodes = [helper.make_node("Shape", ["x"], ["s"]), helper.make_node("Cast", ["s"], ["y"], to=1)]
    result = imported(nodes)
    assert any("'y' does not depend" in note for note in result.notes)
    values = Evaluator(result.module)({"x": torch.zeros(1, 4, 6, 6)})
    assert values["y"].tolist() == [1, 4, 6, 6]


def test_shape_programs_fold_away():
    nodes = [
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Gather", ["shape", "zero"], ["n"]),
        helper.make_node("Unsqueeze", ["n", "axis"], ["n1"]),
        helper.make_node("Concat", ["n1", "rest"], ["target"], axis=0),
        helper.make_node("Reshape", ["x", "target"], ["y"], "flat"),
    ]
    weights = [
        ("zero", np.int64(0)),
        ("axis", np.array([0], "int64")),
        ("rest", np.array([-1], "int64")),
    ]
    result = imported(nodes, weights)
    assert names(result) == ["flat"]
    assert result.outputs[0].shape == (1, 144)


def test_function_operators_and_local_functions_keep_the_nodes_name():
    opsets = [helper.make_opsetid("", 17)]
    body = [helper.make_node("Neg", ["a"], ["t"]), helper.make_node("Exp", ["t"], ["b"])]
    function = helper.make_function("mine", "NegExp", ["a"], ["b"], body, opsets)
    graph = helper.make_graph(
        [helper.make_node("NegExp", ["x"], ["y"], "outer", domain="mine")],
        "graph",
        [helper.make_tensor_value_info("x", FLOAT, (3,))],
        [helper.make_tensor_value_info("y", FLOAT, None)],
    )
    model = helper.make_model(
        graph, opset_imports=[*opsets, helper.make_opsetid("mine", 1)], functions=[function]
    )
    result = import_onnx(model)
    assert names(result)[-1] == "outer"
    assert names(result)[0].startswith("outer/")


def test_integers_keep_their_dtype():
    nodes = [helper.make_node("Where", ["m", "x", "w"], ["y"])]
    model = helper.make_model(
        helper.make_graph(
            nodes,
            "graph",
            [
                helper.make_tensor_value_info("m", TensorProto.BOOL, (3,)),
                helper.make_tensor_value_info("x", TensorProto.INT64, (3,)),
            ],
            [helper.make_tensor_value_info("y", TensorProto.INT64, None)],
            [numpy_helper.from_array(np.array([1, 2, 2**40]), "w")],
        ),
        opset_imports=[helper.make_opsetid("", 17)],
    )
    assert import_onnx(model).outputs[0].dtype == "int64"
