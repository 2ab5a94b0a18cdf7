"""``fewbits search``: budgets are read, the recipe is written and can be read back."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from fewbits.compiler.cli import app
from fewbits.compiler.cli.search import parse_budget
from fewbits.compiler.recipe import load_recipe
from fewbits.errors import FewbitsError
from onnx import numpy_helper, parser
from typer.testing import CliRunner


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("4.5bits", (4.5, "bits")),
        ("3e9bops", (3e9, "bops")),
        ("2M", (2 << 20, "bytes")),
        ("2MB", (2 << 20, "bytes")),
        ("100 KiB", (100 << 10, "bytes")),
        ("5000", (5000, "bytes")),
        ("5000B", (5000, "bytes")),
    ],
)
def test_budgets(text: str, wanted: tuple[float, str]) -> None:
    assert parse_budget(text) == wanted


@pytest.mark.parametrize("text", ["", "many", "-3bits", "4.5bit", "bits"])
def test_what_is_no_budget_is_refused(text: str) -> None:
    with pytest.raises(FewbitsError, match="no budget"):
        parse_budget(text)


def test_the_recipe_is_written(tmp_path: Path) -> None:
    model = parser.parse_model("""
        <ir_version: 8, opset_import: ["" : 17]>
        g (float[1,32] x) => (float[1,8] y) <float[32,48] a, float[48,8] b>
        { h = MatMul(x, a) r = Relu(h) y = MatMul(r, b) }
    """)
    rng = np.random.default_rng(0)
    for name, shape in (("a", (32, 48)), ("b", (48, 8))):
        array = rng.normal(size=shape).astype(np.float32)
        model.graph.initializer.append(numpy_helper.from_array(array, name))
    del model.graph.value_info[:]
    onnx.save(model, tmp_path / "m.onnx")
    np.savez(tmp_path / "c.npz", x=rng.normal(size=(4, 32)).astype(np.float32))
    arguments = [
        "search", str(tmp_path / "m.onnx"), "--budget", "6bits", "-c", str(tmp_path / "c.npz"),
        "--out", str(tmp_path / "r.yaml"), "--candidate", "int8", "--candidate", "int3-g16",
    ]  # fmt: skip
    printed = CliRunner().invoke(app, arguments)
    assert printed.exit_code == 0, printed.output
    recipe = load_recipe(tmp_path / "r.yaml")
    assert next(str(p.name) for p in recipe.build()) == "canonicalize"
    as_json = CliRunner().invoke(app, [*arguments, "--json"])
    found = json.loads(as_json.stdout)
    assert {c["layer"] for c in found["choices"]} == {"h", "y"}
    assert found["cost"] <= 6


def test_an_impossible_budget_is_an_error_of_a_few_lines(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["search", "none.onnx", "--budget", "x", "-c", "c.npz"])
    assert result.exit_code != 0
    assert "Traceback" not in result.output
