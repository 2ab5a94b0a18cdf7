"""The benchmark of whole models: scores, checks against the emulated GPU, and a smoke run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import platformdirs
import pytest

ROOT = Path(__file__).resolve().parents[2]
BENCHMARKS = ROOT / "benchmarks"


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))


def test_scores_are_those_of_scipy() -> None:
    from gpu.model_runs import nats, spearman
    from scipy.special import log_softmax
    from scipy.stats import spearmanr

    generator = np.random.default_rng(0)
    outputs, labels = generator.standard_normal((40, 6)), generator.integers(0, 5, 20)
    cosine = (outputs[:20] * outputs[20:]).sum(1)
    assert np.isclose(spearman(outputs, labels), spearmanr(cosine, labels).statistic)
    logits, tokens = generator.standard_normal((3, 4, 9)), generator.integers(0, 9, (3, 4))
    logs = np.take_along_axis(log_softmax(logits, -1), tokens[..., None], -1)
    assert np.isclose(nats(logits, tokens), -logs.mean())


def test_the_gpt_block_masks_what_comes_later() -> None:
    from gpu.gpt import block_inputs, gpt_block

    session = onnxruntime.InferenceSession(gpt_block(32, 4).SerializeToString())
    inputs = block_inputs(2, 5, 32)
    (whole,) = session.run(None, inputs)
    assert whole.shape == (2, 5, 32) and np.isfinite(whole).all()
    changed = {**inputs, "x": inputs["x"].copy()}
    changed["x"][:, 3:] += 1
    (after,) = session.run(None, changed)
    np.testing.assert_array_equal(after[:, :3], whole[:, :3])
    assert np.abs(after[:, 3:] - whole[:, 3:]).max() > 0.1


def test_smoke_run_of_a_block_in_the_emulated_gpu(tmp_path: Path) -> None:
    from fewbits.targets.cuda import testing

    reason = testing.no_compiler()
    if reason is not None:
        pytest.skip(reason)
    out = tmp_path / "found.json"
    kept = {**os.environ, "FEWBITS_CACHE": platformdirs.user_cache_dir("fewbits-tests")}
    done = subprocess.run(
        [sys.executable, "cuda_models.py", "--emulate", "--recipes", "w8a8", "--json", str(out)],
        cwd=BENCHMARKS, capture_output=True, text=True, check=False, env=kept,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(out.read_text("utf-8"))
    assert found["wrong"] == [] and found["times"] == [] and found["card"] == "emulated"


_COMPARISON = """
import sys
from pathlib import Path

import numpy as np
from fewbits.targets.cuda import driver

driver.prepare()
from gpu.build import build
from gpu.cases import Product
from gpu.emulated import RESULTS, compared, keep

folder = Path(sys.argv[1])
cases = [Product("check", "int8", 17, 32, 64, template="mma"),
         Product("check", "int4", 5, 32, 128, 64, template="matvec"),
         Product("check", "int4", 5, 32, 128, 64, template="no such template")]
plan = build(cases, "sm_80", folder, print)
assert ["missing" in entry for entry in plan["cases"]] == [False, False, True]
assert keep(folder) == {case.title: None for case in cases[:2]}
rows = compared(folder, "cpu")
assert [(passes, words) for _, passes, words in rows] == [
    (True, "right, and the emulated GPU's bits")] * 2, rows
with np.load(folder / RESULTS) as kept:
    arrays = {name: array.copy() for name, array in kept.items()}
for title in (case.title for case in cases[:2]):
    arrays[title][0, 0] += 1
np.savez(folder / RESULTS, **arrays)
assert [passes for _, passes, _ in compared(folder, "cpu")] == [False, True]
"""


def test_products_are_kept_and_compared_with_what_was_emulated(tmp_path: Path) -> None:
    from fewbits.targets.cuda import testing

    reason = testing.no_compiler()
    if reason is not None:
        pytest.skip(reason)
    environment = {
        **os.environ, "FEWBITS_CUDA": "emulator:sm_80", "PYTHONPATH": str(BENCHMARKS),
        "FEWBITS_CACHE": platformdirs.user_cache_dir("fewbits-tests"),
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", _COMPARISON, str(tmp_path)],
        capture_output=True, text=True, check=False, env=environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_packed_runtime_is_enough_for_the_run_step(tmp_path: Path) -> None:
    import cuda_pack

    cuda_pack.runtime(tmp_path)
    cuda_pack.scripts(tmp_path / "benchmarks")
    assert not list(tmp_path.rglob("libtvm_compiler.so"))
    code = (
        "import tvm, sys; from pathlib import Path\n"
        "import tvm.runtime.vm, gpu.run, gpu.model_runs, gpu.emulated\n"
        f"assert Path(tvm.__file__).is_relative_to({str(tmp_path)!r}), tvm.__file__\n"
        "assert tvm.runtime.tensor([1.0, 2.0]).numpy().tolist() == [1.0, 2.0]\n"
    )
    environment = {
        "PYTHONPATH": os.pathsep.join([str(tmp_path), str(tmp_path / "benchmarks")]),
        "TVM_USE_RUNTIME_LIB": "1",
        "PATH": "",
    }
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    done = subprocess.run(
        [sys.executable, str(tmp_path / "benchmarks" / "cuda_kernels.py"), "run", str(tmp_path)],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    import torch

    if not torch.cuda.is_available():
        assert done.returncode == 2 and "no GPU" in done.stderr


def test_emulated_results_are_compared_bit_by_bit() -> None:
    from gpu.emulated import _words

    kept = np.array([1.0, 2.0, -0.0], np.float16)
    assert _words("int8, 1 x 3 x 4", kept.copy(), kept) == (
        True, "right, and the emulated GPU's bits",
    )  # fmt: skip
    other = kept.copy()
    other[2] = 0.0
    assert not _words("int8, 1 x 3 x 4", other, kept)[0]
    passes, words = _words("int4 g64, 1 x 3 x 4", other, kept)
    assert passes and words.startswith("1 of 3 differ")
