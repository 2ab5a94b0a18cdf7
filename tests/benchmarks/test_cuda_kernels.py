"""The GPU benchmark: plans, tables, checks that catch wrong results, and a smoke run, emulated."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import platformdirs
import pytest

ROOT = Path(__file__).resolve().parents[2]
BENCHMARKS = ROOT / "benchmarks"


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))


@pytest.mark.parametrize("tiny", [False, True])
def test_cases_survive_the_plan(tiny: bool) -> None:
    from gpu.cases import as_plan, cases, from_plan

    found = cases(tiny)
    assert len(found) >= 6
    assert [from_plan(json.loads(json.dumps(as_plan(case)))) for case in found] == found


def test_every_row_of_the_issue_has_cases() -> None:
    from gpu.cases import FEW_BIT, Product, cases

    found = cases()
    assert {case.group for case in found} == {
        "int8", "fp8", "few-bit", "few-bit-many", "outliers", "fused",
    }  # fmt: skip
    products = [case for case in found if isinstance(case, Product)]
    few = {case.weight for case in products if case.group == "few-bit"}
    assert few == set(FEW_BIT)
    assert {case.rows for case in products if case.group == "few-bit"} == {1, 4, 16}
    assert all(case.bars for case in found)


def _product(weight: str) -> tuple[Any, Any, np.ndarray]:
    """A case with right results, without a GPU."""
    from gpu.cases import Product
    from gpu.values import arguments

    case = Product("int8" if weight == "int8" else "fp8", weight, 70, 64, 96)
    entry = {"operands": [["row", "float32"], ["column", "float32"]], "arrays": []}
    given = arguments(case, entry, Path())
    sums = given.x.astype(np.float64) @ given.decoded.astype(np.float64).T
    row, column = given.operands
    y = (sums.astype(np.float32) * row[:, None] * column[None]).astype(np.float16)
    return case, given, y


@pytest.mark.parametrize("weight", ["int8", "float8_e4m3fn", "float8_e5m2"])
def test_right_results_pass_and_wrong_ones_do_not(weight: str) -> None:
    from gpu.values import disagreement

    case, given, y = _product(weight)
    assert disagreement(case, given, y, "cpu") is None
    assert disagreement(case, given, given.y, "cpu") is not None  # NaN: never written
    swapped = y.copy()
    swapped[[3, 4]] = swapped[[4, 3]]
    assert disagreement(case, given, swapped, "cpu") is not None
    last = y.copy()
    last[-1, -1] += np.float16(0.5 * float(np.abs(y.astype(np.float32)).max()))
    assert disagreement(case, given, last, "cpu") is not None


def test_integers_must_be_equal_to_the_last_bit() -> None:
    from gpu.values import disagreement

    case, given, y = _product("int8")
    y[0, 0] = np.nextafter(y[0, 0], np.float16(np.inf))
    assert disagreement(case, given, y, "cpu") == "1 of 4096 sampled results differ"


def _report(milliseconds: dict[str, float], card: str = "a card") -> Any:
    from gpu.cases import cases
    from gpu.run import Report, Row

    case = cases()[0]
    row = Row(case, "wgmma Sizes()", None, milliseconds, 10**6)
    plan = {"architecture": "sm_90a", "nvcc": "13.0", "versions": {}}
    return Report(plan, card, "1.2", {"copy": 4e12}, [row], [], {})


def test_bars_are_compared_with_measured_times_only() -> None:
    from gpu import tables

    good = _report({"fewbits": 1.0, "cuBLASLt int8": 1.0, "bf16": 1.5})
    assert tables.missed(good) == []
    slow = _report({"fewbits": 1.0, "cuBLASLt int8": 0.8, "bf16": 1.5})
    (line,) = tables.missed(slow)
    assert "0.80 / >= 0.90 of cuBLASLt int8" in line
    emulated = _report({}, "emulated")
    assert tables.missed(emulated) == []
    text = tables.markdown(emulated)
    assert "no GPU was at hand" in text and "not measured / >= 0.90 of cuBLASLt int8" in text


def test_json_has_card_driver_date_and_ratios() -> None:
    from gpu import tables

    found = tables.as_json(_report({"fewbits": 2.0, "cuBLASLt int8": 3.0}))
    assert found["card"] == "a card" and found["driver"] == "1.2" and found["date"]
    bars = found["rows"][0]["bars"]
    assert [bar["measured"] for bar in bars] == [1.5, None]
    assert json.loads(json.dumps(found)) == found


def test_share_of_the_copy_bandwidth_counts_bytes() -> None:
    from gpu.cases import Product
    from gpu.run import Row

    row = Row(Product("few-bit", "int4", 1, 64, 64, 64), "", None, {"fewbits": 1.0}, 2 * 10**9)
    assert row.share("copy", {"copy": 4e12}) == 0.5


def test_tiles_repeat_as_the_whole_weight_is_packed() -> None:
    """Packing a repeated weight gives the repeated packing, whatever the format's planes."""
    from fewbits.formats.compress import compress
    from fewbits.formats.granularity import PerGroup
    from fewbits.formats.parse import parse_format
    from gpu.build import PERIOD, linear
    from gpu.cases import FEW_BIT, Product

    for weight in FEW_BIT:
        case = Product("few-bit", weight, 1, 2 * PERIOD, 128, 64)
        layout = linear(case).weight
        values = np.random.default_rng(1).standard_normal((PERIOD, 128)).astype(np.float32)

        def packed(times: int, case: Any = case, layout: Any = layout, values: Any = values) -> Any:
            tensor = compress(
                np.tile(values, (times, 1)), parse_format(case.weight), granularity=PerGroup(64),
                scale_storage="float16",
            )  # fmt: skip
            return layout.pack(tensor)[0]

        sizes = [PERIOD * 128 * plane.width // 32 for plane in layout.planes]
        pieces = np.split(packed(1), np.cumsum(sizes)[:-1])
        np.testing.assert_array_equal(
            packed(2), np.concatenate([np.tile(piece, 2) for piece in pieces]), weight
        )


def test_run_step_imports_neither_fewbits_nor_tvms_compiler() -> None:
    code = (
        f"import sys; sys.path.insert(0, {str(BENCHMARKS)!r})\n"
        "import gpu.run, gpu.values, gpu.peers, gpu.clock, gpu.tables, tvm.runtime.vm\n"
        "assert not [name for name in sys.modules if name.split('.')[0] == 'fewbits']\n"
        "from tvm.base import _LOADED_LIBS\n"
        "assert 'tvm_compiler' not in _LOADED_LIBS\n"
    )
    subprocess.run(
        [sys.executable, "-c", code], env={"TVM_USE_RUNTIME_LIB": "1", "PATH": ""}, check=True
    )


def test_smoke_run_in_the_emulated_gpu(tmp_path: Path) -> None:
    from fewbits.targets.cuda import testing

    reason = testing.no_compiler()
    if reason is not None:
        pytest.skip(reason)
    out = tmp_path / "found.json"
    # What the GPU's tests have compiled is kept there.
    kept = {**os.environ, "FEWBITS_CACHE": platformdirs.user_cache_dir("fewbits-tests")}
    done = subprocess.run(
        [sys.executable, "cuda_kernels.py", "--emulate", "--json", str(out)],
        cwd=BENCHMARKS, capture_output=True, text=True, check=False, env=kept,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    rows = json.loads(out.read_text("utf-8"))["rows"]
    assert [row["result"] for row in rows] == ["equal"] + ["within bounds"] * 5
    assert all(row["milliseconds"] == {} for row in rows)
