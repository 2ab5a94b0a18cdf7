"""Every verb, for people and as JSON; and Ctrl-C."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

FIGURES = (
    "macs", "instructions_per_inference", "flash_bytes", "ram_bytes", "text_bytes", "score",
)  # fmt: skip


def test_help_and_version(cli):
    assert "compile" in cli("--help").out
    assert cli("--version").out.startswith("fewbits 0.")
    assert cli().status != 0
    assert cli("compil").status == 2


def test_help_imports_nothing_heavy():
    code = (
        "import sys; from fewbits.compiler.cli import app; from typer.testing import CliRunner; "
        "CliRunner().invoke(app, ['--help']); "
        "print([m for m in ('tvm', 'torch', 'onnx', 'onnxruntime', 'matplotlib', 'scipy') "
        "if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_compile_for_the_emulator(cli, tmp_path, model, data):
    done = cli("compile", model, "-t", "cortex-m4", "-c", data, "-o", tmp_path / "out", "--json")
    assert done.status == 0, done.err
    manifest = done.json
    assert all(key in manifest for key in FIGURES)
    assert manifest["instructions_per_inference"] > manifest["macs"] / 2
    assert manifest["golden"] == {"samples": 4, "exact": True}
    stored = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert stored.items() <= manifest.items()
    for name in ("report.html", "bin/model.elf", "bin/firmware.bin", "README.md", "Makefile"):
        assert (tmp_path / "out" / name).stat().st_size > 100
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")]
    shown = cli("report", tmp_path / "out")
    assert shown.status == 0 and "conv" in shown.out and "instructions" in shown.out


def test_compile_with_evaluation(cli, tmp_path, model, artifact):
    out = tmp_path / "out"
    evaluation = artifact.parent / "data.npz"
    arguments = ["compile", model, "-t", "c", "-c", evaluation, "-o", out, "--data", evaluation]
    done = cli(*arguments)
    assert done.status == 0, done.err
    assert "8 of 8" in done.out
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["score"] == manifest["evaluation"]["score"] is not None


def test_dry_run_writes_nothing(cli, tmp_path, model, data):
    done = cli("compile", model, "-c", data, "-o", tmp_path / "out", "--dry-run", "--json")
    assert done.status == 0 and done.json["ram_bytes"] > 0
    done = cli("quantize", model, "-c", data, "-o", tmp_path / "q.onnx", "--dry-run")
    assert done.status == 0
    assert sorted(p.name for p in tmp_path.iterdir()) == ["data.npz", "small.onnx"]


@pytest.mark.parametrize("phase", ["import", "compress", "lower", "emit", "build"])
def test_stops_where_told(cli, tmp_path, model, data, phase):
    out = tmp_path / "out"
    done = cli("compile", model, "-t", "c", "-c", data, "-o", out, "--to", phase, "--json")
    assert done.status == 0, done.err
    assert out.exists() == (phase in ("emit", "build"))
    text = cli("compile", model, "-t", "c", "-c", data, "-o", out, "--to", phase)
    assert text.status == 0, text.err
    if out.exists():
        assert cli("report", out).status == 0
        status = cli("run", out, "-i", data).status
        assert status == (0 if phase == "build" else 1)


def test_quantize_gives_a_model_for_onnxruntime(cli, tmp_path, model, data):
    out = tmp_path / "new" / "q.onnx"
    done = cli("quantize", model, "-c", data, "-o", out, "--json")
    assert done.status == 0 and done.json["out"] == str(out)
    operators = {node.op_type for node in onnx.load(out).graph.node}
    assert {"QuantizeLinear", "DequantizeLinear"} <= operators
    x = np.load(data)["x"][:1]
    got = onnxruntime.InferenceSession(str(out)).run(None, {"x": x})[0]
    want = onnxruntime.InferenceSession(str(model)).run(None, {"x": x})[0]
    assert np.abs(got - want).max() < 0.1 * np.abs(want).max()
    assert cli("quantize", model, "-c", data, "-o", out).status == 0


def test_inspect(cli, model):
    found = cli("inspect", model, "--json").json
    assert found["macs"] == 36 * 4 * 2 * 9 + 16
    assert [p["name"] for p in found["inputs"]] == ["x"]
    text = cli("inspect", model)
    assert "conv" in text.out and "integers" in text.out


def test_calibrate(cli, tmp_path, model, data):
    out = tmp_path / "encodings.json"
    done = cli("calibrate", model, "-c", data, "-o", out, "--json")
    assert done.status == 0
    assert done.json == json.loads(out.read_text())
    encoding = done.json["activation_encodings"]["x"][0]
    x = np.load(data)["x"]
    assert encoding["min"] <= 0 <= encoding["max"]
    assert encoding["max"] == pytest.approx(x.max(), rel=0.5)
    assert "zero point" in cli("calibrate", model, "-c", data).out


def test_sensitivity(cli, model, data):
    done = cli("sensitivity", model, "-c", data, "--json")
    names = [entry["name"] for entry in done.json["entries"]]
    assert sorted(names) == ["conv", "dense"] and set(done.json["exclude"]) <= set(names)
    assert "--keep-float" in cli("sensitivity", model, "-c", data).out


def test_keep_float(cli, tmp_path, model, data):
    common = ["compile", model, "-t", "c", "-c", data, "--to", "lower", "-o", tmp_path / "out"]
    assert cli(*common, "--keep-float", "dense").status == 0
    assert cli(*common, "--keep-float", "conv2d").status == 0
    assert cli(*common, "--keep-float", "re:con.").status == 0


def test_run(cli, tmp_path, artifact, data):
    out = tmp_path / "y.npz"
    done = cli("run", artifact, "-i", data, "-o", out, "--json")
    assert done.json["outputs"] == {"y": [8, 4]}
    with np.load(out) as outputs:
        real = outputs["y"]
    session = onnxruntime.InferenceSession(str(artifact / "reference" / "model.onnx"))
    want = np.concatenate([session.run(None, {"x": x[None]})[0] for x in np.load(data)["x"]])
    assert np.abs(real - want).max() < 0.1 * np.abs(want).max()
    assert cli("run", artifact, "-i", data).status == 0


def test_run_on_codes(cli, tmp_path, artifact, data):
    port = json.loads((artifact / "manifest.json").read_text())["inputs"][0]
    x = np.load(data)["x"]
    codes = np.clip(np.rint(x / port["scale"]) + port["zero_point"], -128, 127).astype(np.int8)
    np.savez(tmp_path / "codes.npz", x=codes)
    done = cli("run", artifact, "-i", tmp_path / "codes.npz", "-o", tmp_path / "y.npz", "--raw")
    assert done.status == 0, done.err
    cli("run", artifact, "-i", data, "-o", tmp_path / "real.npz")
    with np.load(tmp_path / "y.npz") as raw, np.load(tmp_path / "real.npz") as real:
        assert raw["y"].dtype == np.int8
        out = json.loads((artifact / "manifest.json").read_text())["outputs"][0]
        back = (raw["y"].astype(np.float32) - out["zero_point"]) * np.float32(out["scale"])
        np.testing.assert_array_equal(back, real["y"])


def test_verify(cli, tmp_path, artifact):
    folder = tmp_path / "out"
    shutil.copytree(artifact, folder)
    done = cli("verify", folder, "-d", artifact.parent / "data.npz", "--limit", "5", "--json")
    assert done.status == 0
    assert done.json["samples"] == done.json["exact"] == 5
    assert 0 <= done.json["score"] <= 1 and done.json["snr_db"] > 15
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["evaluation"] == done.json
    assert "8" in cli("verify", folder, "-d", artifact.parent / "data.npz").out


@pytest.mark.parametrize("verb", ["targets", "recipes", "formats", "doctor"])
def test_lists(cli, verb):
    assert cli(verb, "--json").json
    assert cli(verb).out.strip()


def test_a_printed_recipe_can_be_used(cli, tmp_path, model, data):
    recipe = tmp_path / "mine.yaml"
    recipe.write_text(cli("recipes", "int8").out)
    done = cli("calibrate", model, "-c", data, "-r", recipe, "--json")
    assert done.json == cli("calibrate", model, "-c", data, "--json").json
    assert cli("recipes", "int9").status == 1


def test_two_compilations_give_the_same_bytes(cli, tmp_path, model, data):
    for name in ("one", "two"):
        done = cli("compile", model, "-c", data, "-o", tmp_path / name, "-t", "cortex-m0plus")
        assert done.status == 0, done.err
    one, two = tmp_path / "one", tmp_path / "two"
    files = sorted(p.relative_to(one) for p in one.rglob("*") if p.is_file())
    assert files == sorted(p.relative_to(two) for p in two.rglob("*") if p.is_file())
    different = [f for f in files if (one / f).read_bytes() != (two / f).read_bytes()]
    assert different == []


@pytest.mark.skipif(os.name != "posix", reason="signals")
@pytest.mark.parametrize(
    ("word", "number", "status"),
    [("✓", signal.SIGINT, 130), ("build", signal.SIGINT, 130), ("build", signal.SIGTERM, 143)],
)
def test_interrupted(tmp_path, artifact, model, data, word, number, status):
    """Ctrl-C or a polite kill after a phase: the earlier output is whole, nothing lies around."""
    out = tmp_path / "out"
    shutil.copytree(artifact, out)
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    child = subprocess.Popen(
        [sys.executable, "-c", "from fewbits.compiler.cli import main; main()", "compile",
         str(model), "-c", str(data), "-o", str(out), "-t", "cortex-m4", "--golden", "1000"],
        stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    assert child.stderr is not None
    seen = ""
    while word not in seen:
        line = child.stderr.readline()
        assert line, f"ended before it was interrupted: {seen}"
        seen += line
    time.sleep(0.05)
    os.killpg(child.pid, number)
    _, rest = child.communicate(timeout=60)
    assert child.returncode == status, seen + rest
    assert "Traceback" not in rest and ("interrupted" in rest) == (number == signal.SIGINT)
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")]


def test_unprintable_names(cli, tmp_path, small_model, data):
    """Markup, escapes and line breaks in names reach neither rich nor the files."""
    model = small_model()
    model.graph.node[0].name = "[red]conv[/] */ \x1b[31m\n\"'"
    path = Path(tmp_path / "it's [bold] ü.onnx")
    onnx.save(model, path)
    done = cli("compile", path, "-t", "c", "-c", data, "-o", tmp_path / "o u t")
    assert done.status == 0, done.err
    assert "\x1b" not in done.out
    assert cli("inspect", path).status == cli("sensitivity", path, "-c", data).status == 0
