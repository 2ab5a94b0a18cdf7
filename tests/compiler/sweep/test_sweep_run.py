"""Whole sweeps of small models: figures, resuming, tables, plots, page, command line."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from fewbits.compiler.cli import app
from fewbits.compiler.sweep.plan import SweepPlan, make_plan
from fewbits.compiler.sweep.run import sweep
from fewbits.compiler.sweep.store import Store
from fewbits.compiler.sweep.tables import COLUMNS
from fewbits.errors import FewbitsError
from fewbits.formats.compress import compress
from fewbits.formats.granularity import PerBlock
from fewbits.formats.parse import parse_format
from onnx import numpy_helper
from pyarrow import parquet
from typer.testing import CliRunner


def plan_of(family: Path, **changes: Any) -> SweepPlan:
    models = [family / "small.onnx", family / "large.onnx"]
    raw = {"models": models, "formats": ["int", "nf4"], "bits": [3, 4, 16], "blocks": [16]}
    return make_plan({**raw, "options": {"ignore": ["head"]}, **changes})


def _accuracy_by_hand(family: Path, name: str) -> tuple[float, float]:
    """Accuracy, and cosine to float, of the model rounded to int3 in blocks of 16."""
    model = onnx.load(family / f"{name}.onnx")
    data = np.load(family / "eval.npz")
    weights = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    outputs = []
    for rounded in (False, True):
        values = dict(weights)
        for key in ("up.weight", "down.weight") if rounded else ():
            tensor = compress(
                weights[key].T, parse_format("int3"), granularity=PerBlock(16),
                scale_storage="float16",
            )  # fmt: skip
            values[key] = tensor.decode().T
        inner = np.maximum(data["x"] @ values["up.weight"] + values["up.bias"], 0)
        outputs.append(inner @ values["down.weight"] @ values["head.weight"])
    exact, got = outputs
    lengths = np.linalg.norm(exact, axis=1) * np.linalg.norm(got, axis=1)
    return (got.argmax(1) == data["labels"]).mean(), ((exact * got).sum(1) / lengths).mean()


def test_figures_are_those_of_the_rounded_model(family: Path, tmp_path: Path, inline) -> None:
    result = sweep(plan_of(family), tmp_path / "out", inline())
    assert result.count("done") == len(result.rows) == 2 * 5 and result.known == 0
    for name, width in (("small", 8), ("large", 24)):
        rows = {row["format"]: row for row in result.rows if row["model"] == name}
        assert list(rows) == ["float32", "float16", "int3", "int4", "nf4"]
        accuracy, cosine = _accuracy_by_hand(family, name)
        assert rows["int3"]["metric"] == "accuracy"
        assert rows["int3"]["quality"] == rows["int3"]["accuracy"] == pytest.approx(accuracy)
        assert rows["int3"]["cosine"] == pytest.approx(cosine, rel=1e-5)
        assert rows["float32"]["cosine"] == pytest.approx(1.0)
        body = 16 * width
        assert rows["int3"]["body_bits"] == body * 3 + body // 16 * 16
        assert rows["nf4"]["bits_per_weight"] == 5.0
        assert rows["float16"]["body_bits"] == 16 * body
        assert rows["int3"]["head_bits"] == 32 * 32
        assert rows["int3"]["rest_bits"] == 32 * width


def test_interrupted_sweeps_go_on_where_they_were(family: Path, tmp_path: Path, inline) -> None:
    out, plan = tmp_path / "out", plan_of(family)
    with pytest.raises(KeyboardInterrupt):
        sweep(plan, out, inline(stop_after=3))
    assert len(list((out / "cells").glob("*.json"))) == 3
    again = inline()
    result = sweep(plan, out, again)
    assert len(again.jobs) == 7 and result.known == 3 and result.count("done") == 10
    third = inline()
    assert sweep(plan, out, third).rows == result.rows and not third.jobs
    # A larger plan in the same folder runs what is new.
    wider = inline()
    sweep(plan_of(family, bits=[3, 4, 5, 16]), out, wider)
    assert [job["format"] for job in wider.jobs] == ["int5", "int5"]


def test_failures_are_tried_again_and_refusals_are_not(
    family: Path, tmp_path: Path, inline
) -> None:
    refused = {
        "status": "refused",
        "seconds": 0.1,
        "error": {"code": "bad-granularity", "message": "no", "where": None, "hint": None},
    }
    failed = {**refused, "status": "failed"}
    outcomes = {"int3": refused, "int4": failed}
    real = inline().work

    def work(job: Any) -> dict[str, Any]:
        return outcomes.get(job["format"]) or real(job)

    out, plan = tmp_path / "out", plan_of(family, models=[family / "small.onnx"])
    first = sweep(plan, out, inline(work))
    assert (first.count("refused"), first.count("failed"), first.count("done")) == (1, 1, 3)
    assert "bad-granularity" in (out / "report.html").read_text("utf-8")
    second = inline()
    assert sweep(plan, out, second).count("done") == 4
    assert [job["format"] for job in second.jobs] == ["int4"]


def test_impossible_cells_are_refused_one_by_one(family: Path, tmp_path: Path, inline) -> None:
    plan = plan_of(family, solvers=["gptq"], bits=[4])
    (family / "calibration.npz").unlink()
    plan = make_plan({**plan.model_dump(), "models": [family / "small.onnx"]})
    result = sweep(plan, tmp_path / "out", inline())
    assert [row["status"] for row in result.rows] == ["done", "refused", "refused"]
    assert all(row["error"].startswith("no-calibration") for row in result.rows[1:])


def test_tables_hold_every_row(family: Path, tmp_path: Path, inline) -> None:
    out = tmp_path / "out"
    rows = sweep(plan_of(family), out, inline()).rows
    table = parquet.read_table(out / "results.parquet")
    assert table.column_names == list(COLUMNS)
    assert table.to_pylist() == rows
    with (out / "results.csv").open(newline="") as file:
        read = list(csv.DictReader(file))
    assert [float(row["quality"]) for row in read] == [row["quality"] for row in rows]
    assert [row["format"] for row in read] == [row["format"] for row in rows]


def test_plots_and_page(family: Path, tmp_path: Path, inline) -> None:
    import matplotlib.image

    out = tmp_path / "out"
    sweep(plan_of(family, metric="sqnr_db", models=[family / "small.onnx"]), out, inline())
    names = {path.name for path in (out / "plots").iterdir()}
    assert names == {
        f"sqnr_db-{kind}.{end}" for kind in ("scaling", "widths") for end in ("png", "svg")
    }
    sweep(plan_of(family), out, inline())
    assert (out / "plots" / "accuracy-panels.png").is_file()
    for path in (out / "plots").glob("*.png"):
        image = matplotlib.image.imread(path)
        assert (
            image.shape[0] > 400 and len(np.unique(image.reshape(-1, image.shape[2]), axis=0)) > 50
        )
    page = (out / "report.html").read_text("utf-8")
    assert page.count("<svg") == 3
    assert not re.search(r"""(src|href)=["']https?:""", page)
    for words in ("The front", "Which width wins", "nf4", "int3", "large", "float16"):
        assert words in page


def test_foreign_folders_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(FewbitsError) as caught:
        Store(tmp_path)
    assert caught.value.code == "output-exists"


def test_damaged_results_count_as_none(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.begin({})
    store.put("a", {}, {"status": "done", "seconds": 1.0})
    assert store.get("a") == {"cell": {}, "status": "done", "seconds": 1.0}
    (tmp_path / "cells" / "a.json").write_text('{"status": "do')
    assert store.get("a") is None and store.get("b") is None
    (tmp_path / "cells" / "a.json").write_text("[]")
    assert store.get("a") is None


def test_the_verb(family: Path, tmp_path: Path) -> None:
    def run(*arguments: object) -> Any:
        return CliRunner().invoke(app, ["sweep", *map(str, arguments)], catch_exceptions=False)

    options = ["-m", family / "small.onnx", "-f", "int", "-b", 4, "--block", 16]
    listed = run(*options, "--dry-run", "--json")
    assert [cell["format"] for cell in json.loads(listed.stdout)] == ["float32", "int4"]
    done = run(*options, "--out", tmp_path / "out", "--jobs", 1, "--json")
    assert done.exit_code == 0
    assert [row["status"] for row in json.loads(done.stdout)["rows"]] == ["done", "done"]
    (tmp_path / "plan.yaml").write_text(
        f"models: [{family / 'small.onnx'}]\nformats: [int]\nbits: [4]\n"
    )
    known = run(tmp_path / "plan.yaml", "--block", 16, "--out", tmp_path / "out")
    assert known.exit_code == 0 and "2 known before" in known.stdout
    wrong = run("--format", "int", "--json")
    assert wrong.exit_code == 1 and json.loads(wrong.stdout)["error"]["code"] == "bad-plan"


@pytest.mark.parametrize(
    ("target", "changes"),
    [("cortex-m4", {"recipes": ["int8"], "formats": [], "bits": []}), ("cpu", {"bits": [4]})],
)
def test_latency_comes_from_the_product(
    family: Path, tmp_path: Path, inline, target: str, changes: dict
) -> None:
    if target == "cpu":
        pytest.importorskip("fewbits.targets.cpu.target", reason="no CPU target")
    plan = plan_of(family, models=[family / "small.onnx"], targets=[target], **changes)
    rows = sweep(plan, tmp_path / "out", inline()).rows
    done = [row for row in rows if row["status"] == "done"]
    assert done, [row["error"] for row in rows]
    for row in done:
        assert (row["instructions"] or row["latency_ms"]) > 0
    assert (tmp_path / "out" / "plots" / "accuracy-latency.png").is_file()
