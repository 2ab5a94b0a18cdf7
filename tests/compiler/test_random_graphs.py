"""A few of the graphs that `benchmarks/fuzz_graphs.py` runs by the thousand, through to C."""

from __future__ import annotations

import collections
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

FIRST, COUNT = 2000, 20


@pytest.fixture(scope="module")
def fuzzer() -> ModuleType:
    path = Path(__file__).resolve().parents[2] / "benchmarks" / "fuzz_graphs.py"
    spec = importlib.util.spec_from_file_location("fuzz_graphs", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_random_graphs_compile_and_agree(fuzzer, tmp_path):
    """Exact against the oracle, close to onnxruntime, or refused with a `FewbitsError`."""
    seeds = range(FIRST, FIRST + COUNT)
    findings = list(fuzzer.campaign(seeds, ["int8", "float"], tmp_path, batch=2 * COUNT))
    bad = [f"seed {f.seed} {f.recipe}: {f.kind}\n{f.detail}" for f in findings if not f.good]
    assert not bad, "\n".join(bad)
    counts = collections.Counter(f.kind for f in findings)
    assert counts["ok"] >= 0.9 * 2 * COUNT, counts


def test_generated_projects_are_clean_under_sanitizers(fuzzer, tmp_path):
    compiler = fuzzer.system_compiler()
    if compiler is None:
        pytest.skip("no system compiler with the address sanitizer")
    seeds = range(FIRST + COUNT, FIRST + COUNT + 4)
    findings = list(fuzzer.campaign(seeds, ["int8", "float"], tmp_path, compiler=compiler))
    bad = [f"seed {f.seed} {f.recipe}: {f.kind}\n{f.detail}" for f in findings if not f.good]
    assert not bad, "\n".join(bad)


def test_the_fuzzer_sees_a_wrong_result(fuzzer, tmp_path):
    """Its comparisons can fail."""
    case = fuzzer.prepare(FIRST, "int8", tmp_path)
    assert isinstance(case, fuzzer.Case)
    [(_, library)], findings = fuzzer.build_all([case], tmp_path)
    assert not findings
    assert fuzzer.check(case, library).good
    case.expected[0] = case.expected[0] + case.expected[0].dtype.type(1)
    assert fuzzer.check(case, library).kind == "not exact"
