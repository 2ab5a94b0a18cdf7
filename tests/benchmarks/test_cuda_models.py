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
