"""What users may do wrong, and sizes without a fast kernel: an error, or what is right."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from fewbits import FewbitsError
from fewbits.compiler.api import compile as compile_model
from fewbits.compiler.api import load
from fewbits.targets.cuda import testing
from fewbits.targets.cuda.emulator import install
from fewbits.targets.cuda.runner import LARGEST_SIZE
from onnx import TensorProto, helper, numpy_helper

_NO_COMPILER = testing.no_compiler()
pytestmark = pytest.mark.skipif(_NO_COMPILER is not None, reason=str(_NO_COMPILER))


def _dense(
    inputs: int = 24, outputs: int = 7, rows: int | str = "n", weight: np.ndarray | None = None
) -> onnx.ModelProto:
    if weight is None:
        weight = np.random.default_rng(inputs + outputs).normal(size=(inputs, outputs))
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"], "dense")],
        "dense",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [rows, inputs])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [rows, outputs])],
        [numpy_helper.from_array(weight.astype(np.float32), "w")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def _compile(model: onnx.ModelProto, out: Path, target: str = "cuda-sm80", **options: Any) -> Any:
    options = {"recipe": "float", "calibration": "random", "tuning": None, **options}
    return compile_model(model, out, target=target, **options)


@pytest.fixture(autouse=True)
def _emulated() -> Any:
    """The emulated one, whatever the machine has: its memory and its age are part of the tests."""
    reason = testing.unavailable("sm_80")
    if reason is not None:
        pytest.skip(reason)
    install("sm_80")
    yield
    install("sm_90a")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    install("sm_80")
    return _compile(_dense(), tmp_path_factory.mktemp("bad") / "out").folder


@pytest.mark.parametrize(
    ("inputs", "outputs", "recipe"),
    [(1, 1, "float"), (33, 1, "w8a8"), (129, 3, "nf4-b64"), (7, 129, "w8a8"), (257, 2, "w4-g128")],
)
def test_odd_and_tiny_products(tmp_path: Path, inputs: int, outputs: int, recipe: str) -> None:
    model = _dense(inputs, outputs)
    _compile(model, tmp_path / "out", recipe=recipe)  # which compares it with the oracle
    loaded = load(tmp_path / "out")
    session = onnxruntime.InferenceSession(model.SerializeToString())
    for rows in (1, 3, 130):
        x = np.random.default_rng(rows).normal(size=(rows, inputs)).astype(np.float32)
        (want,) = session.run(None, {"x": x})
        error = np.linalg.norm(loaded(x=x)["y"] - want) / np.linalg.norm(want)
        assert error < (2e-3 if recipe == "float" else 0.25)


@pytest.mark.parametrize("make", [
    lambda x: np.asfortranarray(x),
    lambda x: np.repeat(x, 2, axis=1)[:, ::2],
    lambda x: x[::-1][::-1],
    lambda x: np.concatenate([np.zeros(1, np.float32), x.ravel()])[1:].reshape(x.shape),
])  # fmt: skip
def test_arrays_that_do_not_lie_in_one_piece(folder: Path, make: Any) -> None:
    x = np.random.default_rng(1).normal(size=(5, 24)).astype(np.float32)
    loaded = load(folder)
    np.testing.assert_array_equal(loaded(x=make(x))["y"], loaded(x=x)["y"])


@pytest.mark.parametrize("start", [1, 3, 16])
def test_tensors_from_any_address(folder: Path, start: int) -> None:
    """A view into a larger tensor begins where no 16 bytes are read at once."""
    import tvm

    x = np.random.default_rng(2).normal(size=(5, 24)).astype(np.float32)
    whole = np.concatenate([np.zeros(start, np.float32), x.ravel()])
    there = tvm.runtime.tensor(whole, device=tvm.cuda(0))
    loaded = load(folder)
    got = loaded(x=_View(there, (5, 24), 4 * start))["y"]
    np.testing.assert_array_equal(got.numpy(), loaded(x=x)["y"])


class _View:
    """Part of a tensor on the GPU, by DLPack."""

    def __init__(self, whole: Any, shape: tuple[int, ...], offset: int) -> None:
        self.view = whole._create_view(shape, relative_byte_offset=offset)
        self.shape = shape
        self.dtype = str(whole.dtype)

    def __dlpack__(self, **options: Any) -> Any:
        return self.view.__dlpack__(**options)

    def __dlpack_device__(self) -> tuple[int, int]:
        return tuple(map(int, self.view.__dlpack_device__()))  # type: ignore[return-value]


def test_tensors_of_another_type_are_refused(folder: Path) -> None:
    import tvm

    loaded = load(folder)
    for dtype in (np.float64, np.int32):
        there = tvm.runtime.tensor(np.zeros((2, 24), dtype), device=tvm.cuda(0))
        with pytest.raises(FewbitsError) as caught:
            loaded(x=there)
        assert caught.value.code == "wrong-dtype"


def test_tensors_of_another_device_are_refused(folder: Path) -> None:
    import tvm

    class Elsewhere(_View):
        def __dlpack_device__(self) -> tuple[int, int]:
            return 2, 1

    there = tvm.runtime.tensor(np.zeros(48, np.float32), device=tvm.cuda(0))
    with pytest.raises(FewbitsError) as caught:
        load(folder)(x=Elsewhere(there, (2, 24), 0))
    assert caught.value.code == "wrong-device" and caught.value.hint


def test_no_rows_are_refused(folder: Path) -> None:
    import tvm

    loaded = load(folder)
    with pytest.raises(FewbitsError) as caught:
        loaded(x=np.zeros((0, 24), np.float32))
    assert caught.value.code in ("empty-data", "wrong-shape")
    there = tvm.runtime.empty((0, 24), "float32", tvm.cuda(0))
    with pytest.raises(FewbitsError) as caught:
        loaded(x=there)
    assert caught.value.code in ("empty-data", "wrong-shape")


def test_more_rows_than_blocks_are_counted_in_are_refused(folder: Path) -> None:
    """The tensor claims its size; nothing of it is there."""
    import tvm

    class Huge(_View):
        def __init__(self, whole: Any) -> None:
            super().__init__(whole, (1, 24), 0)
            self.shape = (LARGEST_SIZE + 1, 24)

    there = tvm.runtime.tensor(np.zeros(24, np.float32), device=tvm.cuda(0))
    with pytest.raises(FewbitsError) as caught:
        load(folder)(x=Huge(there))
    assert caught.value.code == "wrong-shape" and str(LARGEST_SIZE) in str(caught.value.hint)


def test_a_batch_that_does_not_fit_is_refused_and_the_next_one_runs(tmp_path: Path) -> None:
    built = _compile(_dense(8, 4096), tmp_path / "out")
    install("sm_80", memory=1 << 20)
    try:
        loaded = load(built.folder)
        with pytest.raises(FewbitsError) as caught:
            loaded(x=np.zeros((4000, 8), np.float32))
        assert caught.value.code == "out-of-memory" and "smaller batches" in str(caught.value.hint)
        x = np.ones((1, 8), np.float32)
        assert np.isfinite(loaded(x=x)["y"]).all()
    finally:
        install("sm_80")


def test_an_older_gpu_is_refused_by_name(tmp_path: Path) -> None:
    install("sm_90a")
    built = _compile(_dense(), tmp_path / "out", target="cuda-sm90a")
    install("sm_80")
    with pytest.raises(FewbitsError) as caught:
        load(built.folder)
    assert caught.value.code == "wrong-machine"
    assert "8.0" in caught.value.message and "sm_90a" in caught.value.message


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("recipe", ["float", "w8a8", "w4-g128"])
def test_weights_that_are_no_numbers(tmp_path: Path, value: float, recipe: str) -> None:
    weight = np.ones((24, 7), np.float32)
    weight[3, 2] = value
    with pytest.raises(FewbitsError) as caught:
        _compile(_dense(weight=weight), tmp_path / "out", recipe=recipe)
    assert caught.value.code and "dense" in f"{caught.value.where} {caught.value.message}"
    assert not (tmp_path / "out").exists()


def test_damaged_libraries_are_not_loaded(folder: Path, tmp_path: Path) -> None:
    whole = (folder / "model.so").read_bytes()
    middle = len(whole) // 2
    changed = whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :]
    for content, code in ((changed, "bad-library"), (whole[:5000], "bad-library"), (b"", None)):
        copy = Path(shutil.copytree(folder, tmp_path / f"copy{len(content)}"))
        (copy / "model.so").write_bytes(content)
        with pytest.raises(FewbitsError) as caught:
            load(copy)
        assert code is None or caught.value.code == code
    (copy / "model.so").unlink()
    with pytest.raises(FewbitsError) as caught:
        load(copy)
    assert caught.value.code == "no-such-file"


def test_without_a_compiler_the_error_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FEWBITS_NVCC", str(tmp_path / "nvcc"))
    with pytest.raises(FewbitsError) as caught:
        _compile(_dense(), tmp_path / "out")
    assert caught.value.code == "compiler-missing" and caught.value.where == "FEWBITS_NVCC"
    assert not (tmp_path / "out").exists()


def test_a_compiler_that_fails_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Several kernels are compiled at a time: none of them waits for ever."""
    broken = tmp_path / "nvcc"
    broken.write_text('#!/bin/sh\n[ "$1" = --version ] && echo V13.0.88 && exit\nexit 3\n')
    broken.chmod(0o755)
    monkeypatch.setenv("FEWBITS_NVCC", str(broken))
    monkeypatch.setenv("FEWBITS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with pytest.raises(FewbitsError) as caught:
        _compile(_dense(), tmp_path / "out")
    assert caught.value.code == "compiler-failed"
    assert not (tmp_path / "out").exists()
    assert not list(tmp_path.glob("fewbits-nvcc-*"))


def test_a_compilation_that_is_killed_leaves_nothing(tmp_path: Path) -> None:
    """nvcc never ends; the process gets a signal."""
    slow = tmp_path / "nvcc"
    slow.write_text(
        '#!/bin/sh\n[ "$1" = --version ] && echo V13.0.88 && exit\n'
        f"touch {tmp_path}/started\nexec sleep 600\n"
    )
    slow.chmod(0o755)
    onnx.save(_dense(), tmp_path / "dense.onnx")
    environment = {
        **os.environ, "FEWBITS_NVCC": str(slow), "FEWBITS_CACHE": str(tmp_path / "cache"),
        "TMPDIR": str(tmp_path / "temporary"), "FEWBITS_CUDA": "",
    }  # fmt: skip
    (tmp_path / "temporary").mkdir()
    out = tmp_path / "out"
    command = [
        str(Path(sys.executable).with_name("fewbits")), "compile", str(tmp_path / "dense.onnx"),
        "--target", "cuda-sm80", "--recipe", "float", "--calibration", "random", "--out", str(out),
    ]  # fmt: skip
    child = subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        for _ in range(1200):
            if (tmp_path / "started").exists() or child.poll() is not None:
                break
            time.sleep(0.1)
        assert child.poll() is None, child.stdout and child.stdout.read()
        child.send_signal(signal.SIGINT)
        child.wait(timeout=60)
    finally:
        child.kill()
    assert child.returncode != 0
    assert not out.exists()
    assert not list((tmp_path / "temporary").glob("fewbits-nvcc-*"))
    assert {path.name for path in tmp_path.iterdir()} <= {
        "nvcc", "started", "dense.onnx", "temporary", "cache",
    }  # fmt: skip
