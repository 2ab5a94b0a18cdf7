"""External data: read from the model's folder, and from nowhere else."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from fewbits.compiler.importer import external, import_onnx
from fewbits.errors import FewbitsError
from fewbits.ops.evaluate import Evaluator
from fewbits.passes.canonicalize import canonicalize
from onnx import TensorProto, helper


@pytest.fixture
def saved(tmp_path):
    """A model with external data in a folder of its own; returns (path, model, save)."""
    folder = tmp_path / "model"
    folder.mkdir()
    weights = np.arange(64 * 64, dtype="float32").reshape(64, 64)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, 64))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [onnx.numpy_helper.from_array(weights, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    path = folder / "m.onnx"
    onnx.save(model, path, save_as_external_data=True, location="w.bin", size_threshold=0)
    return path


def rewrite(path, **entries):
    model = onnx.load(path, load_external_data=False)
    tensor = model.graph.initializer[0]
    for entry in tensor.external_data:
        if entry.key in entries:
            entry.value = entries[entry.key]
    path.write_bytes(model.SerializeToString())


def refused(path):
    with pytest.raises(FewbitsError) as caught:
        import_onnx(path)
    return caught.value


def test_weights_are_read(saved):
    imported = import_onnx(saved)
    tensor = imported.onnx_model.graph.initializer[0]
    assert onnx.numpy_helper.to_array(tensor)[1, 0] == 64
    assert not tensor.external_data


def test_missing_file(saved):
    (saved.parent / "w.bin").unlink()
    error = refused(saved)
    assert error.code == "missing-external-data"
    assert "'w.bin'" in error.message and "'w'" in error.where


def test_bytes_have_no_folder(saved):
    assert refused(saved.read_bytes()).code == "missing-external-data"


@pytest.mark.parametrize(
    "location",
    ["../secret.bin", "/etc/passwd", "a/../../secret.bin", "C:\\secret.bin", "..\\secret.bin"],
)
def test_escaping_path(saved, location):
    (saved.parent.parent / "secret.bin").write_bytes(bytes(64 * 64 * 4))
    rewrite(saved, location=location)
    assert refused(saved).code == "escaping-external-data"


def test_escaping_link(saved):
    secret = saved.parent.parent / "secret.bin"
    secret.write_bytes(bytes(64 * 64 * 4))
    (saved.parent / "w.bin").unlink()
    (saved.parent / "w.bin").symlink_to(secret)
    assert refused(saved).code == "escaping-external-data"


def test_truncated_data(saved):
    data = saved.parent / "w.bin"
    data.write_bytes(data.read_bytes()[:100])
    assert refused(saved).code == "invalid-external-data"


@pytest.mark.parametrize(
    "entries",
    [{"offset": "-4"}, {"offset": "many"}, {"length": "8"}, {"offset": "99999999999"}],
)
def test_offsets_that_make_no_sense(saved, entries):
    rewrite(saved, **entries)
    model = onnx.load(saved, load_external_data=False)
    if not {e.key for e in model.graph.initializer[0].external_data} & entries.keys():
        pytest.skip("onnx did not write this entry")
    assert refused(saved).code == "invalid-external-data"


@pytest.fixture
def in_files(tmp_path, monkeypatch):
    """A model whose three weights are in two files; returns (path, weights)."""
    monkeypatch.setattr(external, "MAPPED_BYTES", 0)
    random = np.random.default_rng(0)
    weights = {f"w{i}": random.normal(size=(64, 64)).astype("float32") for i in range(3)}
    nodes = [
        helper.make_node("MatMul", ["x", "w0"], ["h"], "first"),
        helper.make_node("MatMul", ["h", "w1"], ["g"], "second"),
        helper.make_node("Gemm", ["g", "w2"], ["y"], "third", transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ("N", 64))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [onnx.numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    for name, location, offset in (("w0", "a.bin", 0), ("w1", "b.bin", 0), ("w2", "b.bin", 16388)):
        [tensor] = [t for t in model.graph.initializer if t.name == name]
        with (tmp_path / location).open("ab") as file:
            file.write(bytes(offset - file.tell()) + tensor.raw_data)
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        entries = {"location": location, "offset": offset, "length": 64 * 64 * 4}
        for key, value in entries.items():
            tensor.external_data.add(key=key, value=str(value))
    path = tmp_path / "m.onnx"
    path.write_bytes(model.SerializeToString())
    return path, weights


def test_weights_of_large_models_stay_in_their_files(in_files):
    path, weights = in_files
    imported = import_onnx(path, dynamic=True)
    assert all(
        t.data_location == TensorProto.EXTERNAL for t in imported.onnx_model.graph.initializer
    )
    x = np.random.default_rng(1).normal(size=(3, 64)).astype("float32")
    expected = x @ weights["w0"] @ weights["w1"] @ weights["w2"].T
    for module in (imported.module, canonicalize(imported.module)):
        [y] = Evaluator(module)({"x": torch.from_numpy(x)}).values()
        np.testing.assert_allclose(y.numpy(), expected, rtol=1e-4, atol=1e-4)
    [reference] = onnxruntime.InferenceSession(str(path)).run(None, {"x": x})
    np.testing.assert_allclose(reference, expected, rtol=1e-4, atol=1e-4)


def test_mapped_weights_are_the_file_and_never_change_it(in_files):
    path, _ = in_files
    before = (path.parent / "a.bin").read_bytes()
    module = import_onnx(path, dynamic=True).module
    first = module["main"].body.blocks[0].bindings[0].value.args[1]
    shared = np.from_dlpack(first.value)
    maps = [line.split() for line in Path("/proc/self/maps").read_text().splitlines()]
    [span] = [fields[0] for fields in maps if fields[-1] == str(path.parent / "a.bin")]
    start, end = (int(bound, 16) for bound in span.split("-"))
    assert start <= shared.ctypes.data < end
    shared[0, 0] = 7
    assert (path.parent / "a.bin").read_bytes() == before


@pytest.mark.parametrize("change", [{"offset": "16389"}, {"length": "4"}, {"location": "../b.bin"}])
def test_mapped_data_are_checked_as_well(in_files, change):
    path, _ = in_files
    model = onnx.load(path, load_external_data=False)
    for entry in model.graph.initializer[2].external_data:
        entry.value = change.get(entry.key, entry.value)
    path.write_bytes(model.SerializeToString())
    assert refused(path).code in ("invalid-external-data", "escaping-external-data")
