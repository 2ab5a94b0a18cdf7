"""ONNX to a library for this CPU, loaded and run: float, integers, few bits, any batch."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from fewbits import FewbitsError
from fewbits.compiler.api import compile as compile_model
from fewbits.compiler.api import load
from onnx import TensorProto, helper, numpy_helper

RANDOM = np.random.default_rng(0)
HOSTILE = "x \"'*/ \n[bold]ü"


def sequence_model() -> onnx.ModelProto:
    """[N, T, 16] and a mask [N, T]: dense, gelu-like, softmax over T, weighted sum."""
    weights = {
        "w": RANDOM.normal(size=(16, 32)).astype("float32"),
        "v": RANDOM.normal(size=(32, 1)).astype("float32"),
    }
    nodes = [
        helper.make_node("MatMul", [HOSTILE, "w"], ["h"], "dense */ \n"),
        helper.make_node("Tanh", ["h"], ["t"]),
        helper.make_node("MatMul", ["t", "v"], ["s"], "score"),
        helper.make_node("Softmax", ["s"], ["p"], axis=1),
        helper.make_node("Unsqueeze", ["mask", "axis"], ["m"]),
        helper.make_node("Mul", ["p", "m"], ["q"]),
        helper.make_node("Mul", ["q", "t"], ["g"]),
        helper.make_node("ReduceSum", ["g", "one"], ["y"], keepdims=0),
    ]
    constants = [numpy_helper.from_array(array, name) for name, array in weights.items()]
    constants += [
        numpy_helper.from_array(np.array([2]), "axis"),
        numpy_helper.from_array(np.array([1]), "one"),
    ]
    graph = helper.make_graph(
        nodes,
        "sequence",
        [
            helper.make_tensor_value_info(HOSTILE, TensorProto.FLOAT, ["N", "T", 16]),
            helper.make_tensor_value_info("mask", TensorProto.FLOAT, ["N", "T"]),
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        constants,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def image_model() -> onnx.ModelProto:
    """A convolution, a pool and a dense layer for a batch of any size."""
    weights = {
        "w": RANDOM.normal(size=(4, 2, 3, 3)).astype("float32"),
        "b": RANDOM.normal(size=4).astype("float32"),
        "m": RANDOM.normal(size=(4, 3)).astype("float32"),
    }
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["c"], "conv", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"], "relu"),
        helper.make_node("GlobalAveragePool", ["r"], ["p"], "pool"),
        helper.make_node("Flatten", ["p"], ["f"], "flatten"),
        helper.make_node("MatMul", ["f", "m"], ["y"], "dense"),
    ]
    graph = helper.make_graph(
        nodes,
        "image",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 2, 6, 6])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def feed(samples: int, length: int) -> dict[str, np.ndarray]:
    random = np.random.default_rng(samples * 100 + length)
    return {
        HOSTILE: random.normal(size=(samples, length, 16)).astype("float32"),
        "mask": random.integers(0, 2, (samples, length)).astype("float32"),
    }


def reference(model: onnx.ModelProto, inputs: dict[str, np.ndarray]) -> np.ndarray:
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return np.asarray(session.run(None, inputs)[0])


@pytest.fixture(scope="module")
def sequence(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("cpu") / "sequence"
    compile_model(sequence_model(), out, target="cpu", recipe="float")
    return out


@pytest.mark.parametrize(("samples", "length"), [(1, 1), (3, 7), (2, 40)])
def test_any_batch_and_length(sequence, samples, length):
    exact = onnx.load(sequence / "reference" / "model.onnx")
    inputs = feed(samples, length)
    got = load(sequence)(**inputs)["y"]
    np.testing.assert_allclose(got, reference(exact, inputs), rtol=1e-4, atol=1e-5)


def test_one_sample_may_leave_the_batch_out(sequence):
    inputs = feed(1, 5)
    library = load(sequence, threads=1)
    alone = library(**{name: array[0] for name, array in inputs.items()})["y"]
    np.testing.assert_array_equal(alone, library(**inputs)["y"])


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"mask": np.ones((3, 6), "float32")}, "wrong-shape"),
        ({"mask": np.ones((2, 7), "float32")}, "wrong-shape"),
        ({"mask": np.ones((3, 7), "int32")}, "wrong-dtype"),
        ({"mask": np.full((3, 7), np.nan, "float32")}, "bad-data"),
        ({"msk": np.ones((3, 7), "float32")}, "unknown-input"),
        ({"mask": None}, "missing-input"),
        (feed(3, 0), "wrong-shape"),
        (feed(0, 7), "empty-data"),
        ({HOSTILE: np.ones((3, 7, 15), "float32")}, "wrong-shape"),
        ({HOSTILE: np.ones(3, "float32")}, "wrong-shape"),
    ],
)
def test_inputs_that_do_not_fit(sequence, change, code):
    inputs = {k: v for k, v in {**feed(3, 7), **change}.items() if v is not None}
    with pytest.raises(FewbitsError) as caught:
        load(sequence)(**inputs)
    assert caught.value.code == code and caught.value.hint


def test_manifest_and_report(sequence):
    manifest = json.loads((sequence / "manifest.json").read_text("utf-8"))
    assert manifest["inputs"][0]["shape"] == ["N", "T", 16]
    assert manifest["golden"]["samples"] == 4 and manifest["golden"]["difference"] < 1e-4
    assert [layer["weights"] for layer in manifest["layers"]] == [512, 32]
    assert manifest["weight_bits"]["codes"] >= 32 * 544
    assert "avx2" in manifest["features"] or manifest["machine"] != "x86_64"
    text = (sequence / "report.html").read_text("utf-8")
    assert "Bits per weight" in text and "<b" + "old" not in text


@pytest.mark.parametrize("recipe", ["float", "int8", "w8a8", "w4-g64-gptq", "sparsegpt50"])
def test_two_builds_are_equal(tmp_path, recipe):
    data = {"x": np.random.default_rng(1).normal(size=(8, 2, 6, 6)).astype("float32")}
    model = image_model()
    one, two = (
        compile_model(
            model, tmp_path / name, target="x86-64-v3", recipe=recipe, to="build",
            calibration=None if recipe in ("float", "w8a8") else data, cache=None,
        )
        for name in ("one", "two")
    )  # fmt: skip
    assert one.manifest == two.manifest and one.manifest["files"]


def test_threads_share_a_library(sequence):
    library = load(sequence)
    inputs = [feed(2, length) for length in (3, 5, 8, 13)]
    wanted = [library(**one)["y"] for one in inputs]
    wrong: list[int] = []

    def work(index: int) -> None:
        for _ in range(10):
            if not np.array_equal(library(**inputs[index])["y"], wanted[index]):
                wrong.append(index)

    workers = [threading.Thread(target=work, args=(index,)) for index in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not wrong


def test_impossible_threads(sequence):
    with pytest.raises(FewbitsError) as caught:
        load(sequence, threads=0)
    assert caught.value.code == "unknown-option"


def changed(sequence: Path, folder: Path, **entries: object) -> Path:
    shutil.copytree(sequence, folder)
    manifest = json.loads((folder / "manifest.json").read_text("utf-8"))
    (folder / "manifest.json").write_text(json.dumps({**manifest, **entries}), "utf-8")
    return folder


@pytest.mark.parametrize("entries", [{"machine": "riscv64"}, {"features": ["avx512vnni"]}])
def test_library_for_another_machine(sequence, tmp_path, monkeypatch, entries):
    from fewbits.targets.cpu import features

    monkeypatch.setattr(features, "_host", lambda: {"avx512vnni": False})
    with pytest.raises(FewbitsError) as caught:
        load(changed(sequence, tmp_path / "other", **entries))
    assert caught.value.code == "wrong-machine" and caught.value.hint


@pytest.mark.parametrize("damage", [lambda data: data[:-2000], lambda data: b"x" * len(data)])
def test_damaged_library(sequence, tmp_path, damage):
    folder = changed(sequence, tmp_path / "damaged")
    (folder / "model.so").write_bytes(damage((folder / "model.so").read_bytes()))
    with pytest.raises(FewbitsError) as caught:
        load(folder)
    assert caught.value.code == "bad-library"


def test_integers_are_those_of_firmware(tmp_path):
    model = image_model()
    data = {"x": np.random.default_rng(1).normal(size=(8, 2, 6, 6)).astype("float32")}
    for target in ("cpu", "c"):
        compile_model(model, tmp_path / target, target=target, recipe="int8", calibration=data)
    library, firmware = load(tmp_path / "cpu"), load(tmp_path / "c")
    np.testing.assert_array_equal(library(**data)["y"], firmware(**data)["y"])
    assert library.artifact.manifest["golden"]["exact"]
    codes = {"x": np.zeros((2, 2, 6, 6), "int8").reshape(2, *library.artifact.inputs[0].shape[1:])}
    np.testing.assert_array_equal(library(raw=True, **codes)["y"], firmware(raw=True, **codes)["y"])


def test_cross_built(tmp_path):
    artifact = compile_model(image_model(), tmp_path / "arm", target="aarch64", recipe="float")
    assert (tmp_path / "arm" / "model.so").read_bytes()[18] == 0xB7  # EM_AARCH64
    assert any("not run" in note for note in artifact.manifest["notes"])
    with pytest.raises(FewbitsError) as caught:
        load(tmp_path / "arm")
    assert caught.value.code == "wrong-machine"


@pytest.mark.skipif(sys.platform != "linux", reason="links as on Linux")
def test_c_example(sequence, tmp_path):
    import tvm

    packages = Path(tvm.__file__).parent.parent
    folders = [packages / "tvm_ffi" / "lib", packages / "tvm" / "lib"]
    command = [
        sys.executable, "-m", "ziglang", "cc", "-std=gnu99", "-Wall", "-Wextra", "-Werror",
        "-I", str(packages / "tvm_ffi" / "include"), str(sequence / "examples" / "run.c"),
        "-o", str(tmp_path / "run"), *(f"-L{f}" for f in folders), "-ltvm_ffi",
        "-Wl,--no-as-needed", "-ltvm_runtime", *(f"-Wl,-rpath,{f}" for f in folders),
    ]  # fmt: skip
    subprocess.run(command, check=True, capture_output=True)
    golden = [sequence / "golden" / f"input_{index}.npy" for index in range(2)]
    subprocess.run(
        [tmp_path / "run", sequence / "model.so", tmp_path / "out", *golden],
        check=True, capture_output=True,
    )  # fmt: skip
    got, want = np.load(tmp_path / "out0.npy"), np.load(sequence / "golden" / "output_0.npy")
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)
    missing = subprocess.run(
        [tmp_path / "run", sequence / "model.so", tmp_path / "out", tmp_path / "none.npy"],
        check=False, capture_output=True, text=True,
    )  # fmt: skip
    assert missing.returncode == 1 and "not an .npy file" in missing.stderr
