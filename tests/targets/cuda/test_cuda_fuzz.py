"""Random layers and graphs on the emulated GPU: a few here, more in `benchmarks/fuzz_cuda.py`."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from fewbits.targets.cuda import testing

sys.path.append(str(Path(__file__).resolve().parents[3]))
from benchmarks import fuzz_cuda

_NO_COMPILER = testing.no_compiler()
pytestmark = pytest.mark.skipif(_NO_COMPILER is not None, reason=str(_NO_COMPILER))


@pytest.mark.parametrize("kind", ["layer", "graph"])
def test_random_models_agree_with_the_oracle_or_are_refused(kind: str) -> None:
    recipes = ["w8a8", "float"] if kind == "graph" else [""]
    jobs = [
        fuzz_cuda.Job(kind, seed, "sm_80", "float16", recipe)
        for seed in ([1, 11, 24, 30] if kind == "layer" else [0, 5])
        for recipe in recipes
    ]
    findings = fuzz_cuda.campaign(jobs)
    assert len(findings) == len(jobs)
    bad = [f"{one.seed} {one.recipe}: {one.detail}" for one in findings if not one.good]
    assert not bad, "\n".join(bad)
    assert any(one.kind == "ok" for one in findings)
