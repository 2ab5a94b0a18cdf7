"""Sizes and indices that a model has no room for: refused or clipped, never read past the end."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from fewbits import FewbitsError
from fewbits.compiler.api import compile as compile_model
from fewbits.compiler.api import load
from onnx import TensorProto, helper, numpy_helper

ROWS = 32
TABLE = np.random.default_rng(0).normal(size=(ROWS, 64)).astype("float32")


def model(nodes, inputs, *constants):
    graph = helper.make_graph(
        [helper.make_node(*node[:3], **node[3]) for node in nodes],
        "table",
        inputs,
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(array, name) for name, array in constants],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def positions():
    """``y = x + table[:T]``."""
    nodes = [
        ("Shape", ["x"], ["t"], {"start": 1, "end": 2}),
        ("Slice", ["table", "zero", "t", "zero"], ["rows"], {}),
        ("Add", ["x", "rows"], ["y"], {}),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 'a "T"\n', 64])
    return model(nodes, [x], ("table", TABLE), ("zero", np.array([0])))


def embedding():
    """``y = table[ids]``."""
    ids = helper.make_tensor_value_info("ids", TensorProto.INT64, ["N", "T"])
    return model([("Gather", ["table", "ids"], ["y"], {})], [ids], ("table", TABLE))


@pytest.fixture(scope="module")
def table(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("limits") / "out"
    artifact = compile_model(positions(), out, target="cpu", recipe="float")
    assert artifact.manifest["largest_sizes"] == {'a "T"\n': ROWS}
    return out


def test_the_whole_table(table):
    x = np.zeros((2, ROWS, 64), np.float32)
    np.testing.assert_array_equal(load(table)(x=x)["y"], np.stack([TABLE, TABLE]))


def test_behind_the_table(table):
    with pytest.raises(FewbitsError, match="is 33, but the model ends at 32") as caught:
        load(table)(x=np.zeros((2, ROWS + 1, 64), np.float32))
    assert caught.value.code == "wrong-shape" and caught.value.hint


@pytest.mark.parametrize(
    ("shape", "text"), [((2, ROWS + 1, 64), "larger than 32"), ((0, 3, 64), "'N' is 0")]
)
def test_the_library_itself_refuses(table, shape, text):
    import tvm
    from tvm.runtime.vm import VirtualMachine

    main = VirtualMachine(tvm.runtime.load_module(str(table / "model.so")), tvm.cpu())["main"]
    with pytest.raises(ValueError, match=text):
        main(tvm.runtime.tensor(np.zeros(shape, np.float32)))
    assert main(tvm.runtime.tensor(np.zeros((1, 3, 64), np.float32))).shape == (1, 3, 64)


@pytest.mark.parametrize("recipe", ["float", "w4-g128"])
def test_no_index_reads_foreign_memory(tmp_path, recipe):
    compile_model(embedding(), tmp_path / "out", target="cpu", recipe=recipe)
    library = load(tmp_path / "out")
    rows = library(ids=np.arange(ROWS)[None])["y"][0]
    far = np.array([[0, ROWS, 2**40, -1, -ROWS, -ROWS - 1, -(2**40)]])
    got = library(ids=far)["y"][0]
    np.testing.assert_array_equal(got, rows[far[0] % ROWS])
