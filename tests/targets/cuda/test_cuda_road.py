"""Whole models for GPUs: compiled without one, run on the emulated one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import numpy as np
import onnxruntime
import pytest
from fewbits import FewbitsError
from fewbits.compiler.api import compile as compile_model
from fewbits.compiler.api import load
from fewbits.targets.cuda import testing
from fewbits.targets.cuda.emulator import install
from fewbits.targets.cuda.toolchain import find_nvcc
from onnx import TensorProto, helper, numpy_helper

RNG = np.random.default_rng(5)


def _has_nvcc():
    try:
        find_nvcc()
    except FewbitsError:
        return False
    return True


pytestmark = pytest.mark.skipif(not _has_nvcc(), reason="nvcc is not installed")


def _model(batch: str | int = "batch size", scale: float = 1.0) -> Any:
    """Two layers with names that no compiler takes, and a softmax."""
    first = (scale * RNG.normal(size=(24, 32)) / 5).astype(np.float32)
    second = (RNG.normal(size=(32, 10)) / 5).astype(np.float32)
    bias = RNG.normal(size=32).astype(np.float32)
    nodes = [
        helper.make_node("MatMul", ["x:0", "first"], ["a"], "layer/one; 'é'"),
        helper.make_node("Add", ["a", "bias"], ["b"], "layer/bias"),
        helper.make_node("Relu", ["b"], ["c"], "float"),
        helper.make_node("MatMul", ["c", "second"], ["d"], "layer/two"),
        helper.make_node("Softmax", ["d"], ["y"], "soft max"),
    ]
    weights = {"first": first, "second": second, "bias": bias}
    graph = helper.make_graph(
        nodes,
        "mlp",
        [helper.make_tensor_value_info("x:0", TensorProto.FLOAT, [batch, 24])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [batch, 10])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def _float(model: Any, x: np.ndarray) -> Any:
    session = onnxruntime.InferenceSession(model.SerializeToString())
    return session.run(None, {"x:0": x})[0]


@pytest.fixture(scope="module")
def model():
    return _model()


@pytest.fixture(scope="module")
def gpu():
    """The emulated one, whatever the machine has: errors of it are part of what is tested."""
    reason = testing.unavailable("sm_80")
    if reason is not None:
        pytest.skip(reason)
    install("sm_80")
    yield
    install("sm_90a")


@pytest.fixture(scope="module")
def artifact(model, gpu, tmp_path_factory):
    out = tmp_path_factory.mktemp("road") / "mlp"
    return compile_model(
        model, out, target="cuda-sm80", recipe="float", calibration="random", tuning=None
    )


def test_the_library_is_verified_and_says_what_it_has(artifact):
    manifest = artifact.manifest
    assert manifest["golden"]["samples"] == 4 and manifest["golden"]["difference"] <= 1e-2
    assert manifest["architectures"] == ["sm_80"] and manifest["float"] == "float16"
    kernels = {layer["name"]: layer["kernel"] for layer in manifest["layers"]}
    assert set(kernels) == {"layer/one; 'é'", "layer/two"}
    assert all(kernel != "generated loops" for kernel in kernels.values())
    assert "sm_80" in (artifact.folder / "report.html").read_text("utf-8")


@pytest.mark.parametrize("rows", [1, 3, 40])
def test_any_batch_gives_what_onnxruntime_gives(artifact, model, rows):
    x = RNG.normal(size=(rows, 24)).astype(np.float32)
    got = load(artifact.folder)(**{"x:0": x})["y"]
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, _float(model, x), atol=3e-3)


def test_tensors_on_the_gpu_stay_there(artifact):
    import tvm

    x = RNG.normal(size=(5, 24)).astype(np.float32)
    loaded = load(artifact.folder)
    there = tvm.runtime.tensor(x, device=tvm.cuda(0))
    got = loaded(**{"x:0": there})["y"]
    assert tuple(map(int, got.__dlpack_device__())) == (2, 0)
    np.testing.assert_array_equal(got.numpy(), loaded(**{"x:0": x})["y"])
    np.testing.assert_array_equal(there.numpy(), x)


def test_tensors_that_do_not_fit_are_refused(artifact):
    import tvm

    loaded = load(artifact.folder)

    def there(array):
        return tvm.runtime.tensor(array, device=tvm.cuda(0))

    for inputs, code in (
        ({"x:0": there(np.zeros((5, 23), np.float32))}, "wrong-shape"),
        ({"x:0": there(np.zeros((5, 24), np.float16))}, "wrong-dtype"),
        ({"z": there(np.zeros((5, 24), np.float32))}, "unknown-input"),
        ({"x:0": np.zeros((0, 24), np.float32)}, "empty-data"),
    ):
        with pytest.raises(FewbitsError) as caught:
            loaded(**inputs)
        assert caught.value.code == code


def test_two_builds_are_equal(artifact, model, tmp_path):
    again = compile_model(
        model, tmp_path / "again", target="cuda-sm80", recipe="float", calibration="random",
        tuning=None, to="build",
    )  # fmt: skip
    assert again.manifest["files"]["model.so"] == artifact.manifest["files"]["model.so"]


def test_a_library_for_another_generation_is_refused(artifact, tmp_path):
    import shutil

    folder = shutil.copytree(artifact.folder, tmp_path / "copy")
    manifest = json.loads((folder / "manifest.json").read_text("utf-8"))
    manifest["architectures"] = ["sm_90a"]
    (folder / "manifest.json").write_text(json.dumps(manifest), "utf-8")
    with pytest.raises(FewbitsError) as caught:
        load(folder)
    assert caught.value.code == "wrong-machine" and "sm_90a" in caught.value.message


def test_too_little_memory_is_an_error_with_a_hint(artifact):
    install("sm_80", memory=1024)
    try:
        with pytest.raises(FewbitsError) as caught:
            load(artifact.folder)
    finally:
        install("sm_80")
    assert caught.value.code == "out-of-memory" and caught.value.hint


@pytest.mark.parametrize("float_type", ["float32", "bfloat16"])
def test_floats_are_stored_as_asked(model, gpu, tmp_path, float_type):
    built = compile_model(
        model, tmp_path / "out", target="cuda-sm80", recipe="float", calibration="random",
        tuning=None, float_type=float_type,
    )  # fmt: skip
    assert built.manifest["float"] == float_type
    assert built.manifest["golden"]["difference"] <= (1e-4 if float_type == "float32" else 2e-2)


def test_long_sums_of_float16_models_lose_nothing(gpu, tmp_path):
    """3000 ones: a sum in float16 would stop at 2048."""
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"], "dense")],
        "half",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT16, [1, 3000])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT16, None)],
        [numpy_helper.from_array(np.ones((3000, 2), np.float16), "w")],
    )
    half = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    built = compile_model(half, tmp_path / "out", target="cuda-sm80", recipe="float", tuning=None)
    got = load(built.folder)(x=np.ones((1, 3000), np.float16))["y"]
    np.testing.assert_array_equal(got, np.full((1, 2), 3000, np.float16))


def test_other_targets_store_floats_in_32_bits(model, tmp_path):
    with pytest.raises(FewbitsError) as caught:
        compile_model(model, tmp_path / "out", target="cpu", recipe="float", float_type="float16")
    assert caught.value.code == "unknown-option"


@pytest.mark.parametrize(("scale", "where"), [(1e6, "layer/one; 'é'"), (1e5, "layer")])
def test_values_out_of_the_range_of_half_are_named(gpu, tmp_path, scale, where):
    """A weight of 1e6 is too large itself; of 1e5, what it makes is."""
    with pytest.raises(FewbitsError) as caught:
        compile_model(
            _model(scale=scale), tmp_path / "out", target="cuda-sm80", recipe="float",
            calibration="random", tuning=None,
        )  # fmt: skip
    assert caught.value.code == "half-overflow" and "bfloat16" in str(caught.value.hint)
    assert where in str(caught.value.where)
    assert not (tmp_path / "out").exists()


def test_static_sizes_are_recorded_as_a_graph(gpu, tmp_path):
    static = _model(batch=4)
    built = compile_model(
        static, tmp_path / "out", target="cuda-sm80", recipe="float", calibration="random",
        tuning=None,
    )  # fmt: skip
    assert b"cuda_graph.run_or_capture" in (built.folder / "model.so").read_bytes()
    loaded = load(built.folder)
    for _ in range(3):
        x = RNG.normal(size=(4, 24)).astype(np.float32)
        got = loaded(**{"x:0": x})["y"]
        np.testing.assert_allclose(got, _float(static, x), atol=3e-3)


def test_without_a_gpu_nothing_is_run_and_that_is_said(model, tmp_path):
    """In a process of its own: this one has an emulated GPU."""
    import onnx

    onnx.save(model, tmp_path / "mlp.onnx")
    script = (
        "import sys, fewbits\n"
        "a = fewbits.compile(sys.argv[1], sys.argv[2], target='cuda', recipe='float', "
        "calibration='random', tuning=None)\n"
        "print(a.manifest['architectures'], a.manifest['notes'])\n"
        "try:\n    fewbits.load(sys.argv[2])\n"
        "except fewbits.FewbitsError as error:\n    print(error.code, error.hint)\n"
    )
    environment = {k: v for k, v in os.environ.items() if k != "FEWBITS_CUDA"}
    command = [sys.executable, "-c", script, str(tmp_path / "mlp.onnx"), str(tmp_path / "out")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    if "no GPU here" not in done.stdout:
        pytest.skip("there is a GPU")
    assert "['sm_90a', 'sm_89', 'sm_80']" in done.stdout and "not run: no GPU here" in done.stdout
    assert "no-gpu" in done.stdout and "FEWBITS_CUDA=emulator" in done.stdout
