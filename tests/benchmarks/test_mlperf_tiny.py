"""The benchmark's tables and bars; and the two smallest networks, measured."""

from __future__ import annotations

import dataclasses
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    spec = importlib.util.spec_from_file_location(
        "mlperf_tiny", ROOT / "benchmarks" / "mlperf_tiny.py"
    )
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["mlperf_tiny"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def good(benchmark: ModuleType):
    return benchmark.Figures(
        task="kws", target="cortex-m4", samples=4, exact=4, score=None, float_score=None,
        instructions=3_000_000, peer=7_414_788, macs=2_562_432, ram_bytes=8_432, flash_bytes=40_000,
        text_bytes=9_000, compile_seconds=4.0,
    )  # fmt: skip


def test_good_figures_miss_nothing(benchmark: ModuleType, good) -> None:
    assert benchmark.misses([good]) == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"exact": 3}, "1 of 4 runs are not exact"),
        ({"instructions": 7_500_000}, "7,500,000 instructions"),
        ({"ram_bytes": 16_400}, "16,400 B RAM"),
        ({"text_bytes": 21_000}, "21,000 B code"),
        ({"target": "c", "score": 0.9, "peer": None}, "score 0.9000"),
    ],
)
def test_bad_figures_are_named(benchmark: ModuleType, good, change, words: str) -> None:
    (line,) = benchmark.misses([dataclasses.replace(good, **change)])
    assert words in line


def test_tables_hold_every_figure(benchmark: ModuleType, good, capsys) -> None:
    host = dataclasses.replace(
        good, target="c", score=0.9167, float_score=0.91, instructions=None, peer=None, samples=900,
        exact=900,
    )  # fmt: skip
    for table in (benchmark.score_table, benchmark.instruction_table, benchmark.size_table):
        benchmark._print(*table([host, good]), markdown=True)
    text = capsys.readouterr().out
    for words in ("0.9167", "904 of 904", "3.000 M (0.40)", "8,432", "16,300", "40,000"):
        assert words in text


@pytest.mark.parametrize("task", ["kws", "ad"])
def test_figures_reach_their_bars(
    benchmark: ModuleType, task: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not (benchmark.SHARED / "realdata.py").is_file():
        pytest.skip("the networks and their data are not here")
    monkeypatch.syspath_prepend(str(benchmark.SHARED))
    figures = benchmark.run([task], ["cortex-m4"], 1, tmp_path)
    assert [f.target for f in figures] == ["c", "cortex-m4"]
    assert benchmark.misses(figures) == []
