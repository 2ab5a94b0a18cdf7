"""External data: read from the model's folder, and from nowhere else."""

import numpy as np
import onnx
import pytest
from fewbits.compiler.importer import import_onnx
from fewbits.errors import FewbitsError
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
