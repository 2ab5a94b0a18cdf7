"""The verb ``tune`` for GPUs: steps that exclude each other, and those that need no GPU."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from fewbits.compiler.cli.app import app
from fewbits.schedules.tuning.folder import VARIABLE
from typer.testing import CliRunner

RECORD = {
    "version": 1, "problem": "linear", "architecture": "sm_80", "card": "NVIDIA A100",
    "bucket": 16, "rows": 16, "template": "mma", "sizes": {"rows": 16}, "seconds": 1e-5,
    "model_seconds": 2e-5, "trials": 8, "date": "2026-01-31",
}  # fmt: skip


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path / "records"))


def said(*arguments: str, status: int = 0) -> dict[str, object]:
    result = CliRunner().invoke(app, ["tune", *arguments, "--json"])
    assert result.exit_code == status, result.output
    return json.loads(result.stdout)


def test_records_from_elsewhere_are_taken_in(tmp_path: Path) -> None:
    file = tmp_path / "records.jsonl"
    file.write_text(json.dumps(RECORD) + "\nnonsense\n")
    found = said("--merge", str(file))
    assert found["records"] == 1 and found["ignored_lines"] == 1
    kept = (tmp_path / "records" / "cuda-sm_80.jsonl").read_text()
    assert json.loads(kept) == RECORD
    plain = CliRunner().invoke(app, ["tune", "--merge", str(file)])
    assert plain.exit_code == 0 and "1 records" in plain.output


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--target", "cuda-sm80"], "unknown-option"),
        ([], "unknown-option"),
        (["--merge", "a", "--measure", "b"], "unknown-option"),
        (["model.onnx", "--measure", "b"], "unknown-option"),
        (["--build-only", "b", "--target", "cuda-sm80"], "unknown-option"),
        (["--merge", "nothing"], "no-such-file"),
        (["--measure", "nothing"], "bad-plan"),
    ],
)
def test_what_is_refused(arguments: list[str], code: str) -> None:
    error = said(*arguments, status=1)["error"]
    assert isinstance(error, dict) and error["code"] == code


def test_the_help_names_the_steps() -> None:
    text = CliRunner().invoke(app, ["tune", "--help"]).output
    for word in ("--build-only", "--measure", "--merge", "measuring", "records.jsonl"):
        assert word in text
