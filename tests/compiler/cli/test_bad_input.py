"""Whatever is wrong: one error with code and hint, exit status not 0, nothing written."""

from __future__ import annotations

import json
import shutil
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper


def entries(folder: Path) -> dict[str, bytes]:
    """Everything in a folder, hidden files included."""
    return {
        str(p.relative_to(folder)): p.read_bytes() if p.is_file() else b""
        for p in folder.rglob("*")
    }


@pytest.fixture
def refuses(cli: Callable[..., Any], tmp_path: Path) -> Callable[..., Any]:
    """``refuses(code, "compile", ...)``: fails with that code, in text and in JSON, cleanly."""

    def check(code: str, *arguments: object, hint: str = "", message: str = "") -> Any:
        before = entries(tmp_path)
        text = cli(*arguments)
        as_json = cli(*arguments, "--json")
        assert entries(tmp_path) == before, "something was written"
        assert text.status == as_json.status == 1, text.err
        assert text.out == ""
        assert text.err.count("error") >= 1 and code in text.err
        assert "Traceback" not in text.err + as_json.err and "internal" not in text.err
        error = as_json.json["error"]
        assert error["code"] == code, error
        assert error["hint"], error
        assert hint in error["hint"]
        assert message in error["message"], error
        return text

    return check


def save(tmp_path: Path, model: onnx.ModelProto) -> Path:
    path = tmp_path / "bad.onnx"
    path.write_bytes(model.SerializeToString())
    return path


# -- models -----------------------------------------------------------------------------------


def test_not_a_model(refuses, tmp_path, data):
    path = tmp_path / "bad.onnx"
    path.write_bytes(b"<html>not found</html>" * 20)
    refuses("not-onnx", "compile", path, "-c", data, "-o", tmp_path / "out")


def test_no_model(refuses, tmp_path, data):
    missing = tmp_path / "missing.onnx"
    refuses("file-not-found", "compile", missing, "-c", data, "-o", tmp_path / "out")


def test_folder_as_model(refuses, tmp_path, data):
    refuses("file-not-found", "inspect", tmp_path)


def test_truncated_model(refuses, tmp_path, model, data):
    model.write_bytes(model.read_bytes()[:-40])
    refuses("truncated-model", "compile", model, "-c", data, "-o", tmp_path / "out")


def test_opset_of_the_future(small_model, refuses, tmp_path, data):
    path = save(tmp_path, small_model(opset=999))
    refuses("opset-too-new", "compile", path, "-c", data, "-o", tmp_path / "out")


def test_all_unsupported_operators_are_listed(small_model, refuses, tmp_path, data):
    nodes = [
        helper.make_node("StringNormalizer", ["y"], ["a"]),
        helper.make_node("Frobnicate", ["a"], ["z"], domain="com.example"),
    ]
    model = small_model(nodes=nodes)
    model.opset_import.append(helper.make_opsetid("com.example", 1))
    model.graph.output[0].name = "z"
    refused = refuses(
        "unsupported-operator", "compile", save(tmp_path, model), "-c", data,
        "-o", tmp_path / "out",
    )  # fmt: skip
    assert "StringNormalizer" in refused.err and "Frobnicate" in refused.err


def external(tmp_path: Path, model: onnx.ModelProto, location: str) -> Path:
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    return save(tmp_path, model)


@pytest.mark.parametrize("location", ["missing.bin", "../../etc/passwd", "/etc/passwd"])
def test_external_data(small_model, refuses, cli, tmp_path, data, location):
    path = external(tmp_path, small_model(), location)
    done = cli("compile", path, "-c", data, "-o", tmp_path / "out", "--json")
    code = done.json["error"]["code"]
    assert "external" in code
    refuses(code, "compile", path, "-c", data, "-o", tmp_path / "out")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_numbers(small_model, refuses, tmp_path, data, value):
    weights = {"b": np.array([0, value, 0, 0], np.float32)}
    path = save(tmp_path, small_model(weights=weights))
    refuses("not-finite", "compile", path, "-c", data, "-o", tmp_path / "out")


@pytest.mark.parametrize("shape", [(1, 2, 0, 6), (1, 2, 2**20, 2**20), (1, 2, -3, 6)])
def test_absurd_shapes(small_model, refuses, cli, tmp_path, data, shape):
    path = save(tmp_path, small_model(shape=shape))
    code = cli("inspect", path, "--json").json["error"]["code"]
    assert code != "internal"
    refuses(code, "compile", path, "-c", data, "-o", tmp_path / "out")


def test_unbound_dimension(small_model, refuses, cli, tmp_path):
    path = save(tmp_path, small_model(shape=("N", 2, "H", 6)))
    refuses("unbound-dimension", "inspect", path, hint="--bind")
    assert cli("inspect", path, "--bind", "H=6").status == 0


@pytest.mark.parametrize("text", ["H", "=6", "H=x", "H=0", "H=-1"])
def test_malformed_binding(refuses, model, text):
    refuses("unknown-option", "inspect", model, "--bind", text, hint="NAME=SIZE")


# -- data -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arrays", "code", "hint"),
    [
        ({"X": np.zeros((2, 2, 6, 6), "f4")}, "unknown-input", "did you mean 'x'"),
        ({}, "missing-input", "x"),
        ({"x": np.zeros((2, 6, 6, 2), "f4")}, "wrong-shape", "(samples, 2, 6, 6)"),
        ({"x": np.zeros((2, 2, 6, 6), "i8")}, "wrong-dtype", "astype"),
        ({"x": np.zeros((2, 2, 6, 6), "S3")}, "wrong-dtype", "astype"),
        ({"x": np.zeros((0, 2, 6, 6), "f4")}, "empty-data", ".npz"),
        ({"x": np.full((2, 2, 6, 6), np.nan, "f4")}, "bad-data", "clean"),
        ({"x": np.full((2, 2, 6, 6), 1e300)}, "bad-data", ""),
    ],
)
def test_calibration_data(refuses, tmp_path, model, arrays, code, hint):
    path = tmp_path / "data.npz"
    np.savez(path, **arrays)
    refuses(code, "compile", model, "-c", path, "-o", tmp_path / "out", hint=hint)


def test_missing_calibration(refuses, tmp_path, model):
    refuses("no-calibration", "compile", model, "-o", tmp_path / "out", hint="--calibration")
    refuses("no-such-file", "compile", model, "-c", tmp_path / "no.npz", "-o", tmp_path / "out")


@pytest.mark.parametrize("kept", [0, 3, 100, 300])
def test_truncated_data(refuses, tmp_path, model, data, kept):
    data.write_bytes(data.read_bytes()[:kept])
    refuses("bad-data", "calibrate", model, "-c", data)


def test_empty_folder_of_data(refuses, tmp_path, model):
    (tmp_path / "samples").mkdir()
    refuses("empty-data", "calibrate", model, "-c", tmp_path / "samples")


def test_data_that_overflows_inside_the_model(refuses, tmp_path, model):
    path = tmp_path / "huge.npz"
    np.savez(path, x=np.full((2, 2, 6, 6), 3e38, "f4"))
    refuses("not-finite", "compile", model, "-c", path, "-o", tmp_path / "out")


# -- what is asked for ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "code", "hint"),
    [
        (["--target", "cortex-m5"], "unknown-target", "cortex-m"),
        (["--board", "pica"], "unknown-board", "did you mean 'pico'"),
        (["--recipe", "int9"], "unknown-recipe", "did you mean 'int8'"),
        (["--observer", "minimax"], "unknown-observer", "did you mean 'minmax'"),
        (["--to", "verfy"], "unknown-option", "did you mean 'verify'"),
        (["--ram", "lots"], "unknown-option", "128K"),
        (["--ram", "0"], "unknown-option", "128K"),
        (["--golden", "-1"], "unknown-option", "1000"),
        (["--keep-float", "konv"], "unknown-layer", "did you mean 'conv'"),
        (["--keep-float", "re:("], "unknown-option", "wildcard"),
        (["--recipe", "float", "--observer", "mse"], "unknown-pass", "quantizes"),
        (["--cc", "no-such-compiler"], "compiler-missing", "--cc"),
    ],
)
def test_options(refuses, tmp_path, model, data, options, code, hint):
    out = tmp_path / "out"
    refuses(code, "compile", model, "-c", data, "-o", out, *options, hint=hint)


@pytest.mark.parametrize(
    ("text", "code", "hint"),
    [
        ("passes: [canonicalise]", "unknown-pass", "canonicalize"),
        ("passes: [quantize: {observer: mse}]", "unknown-option", "activation_observer"),
        ("passes: ['quantize{strategy=row}']", "unknown-option", "channel"),
        ("passes: ['quantize{percentile=high}']", "unknown-option", "quantize"),
        ("passes: ['quantize{percentile']", "bad-recipe", ""),
        ("passess: []", "bad-recipe", "passes"),
        ("[", "bad-recipe", ""),
        ("- 1", "bad-recipe", "passes"),
        ("passes: 3", "bad-recipe", "docs"),
        ("passes: [{a: {}, b: {}}]", "bad-recipe", "list item"),
        ("passes: [{}]", "bad-recipe", "list item"),
    ],
)
def test_recipes(refuses, tmp_path, model, data, text, code, hint):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    out = tmp_path / "out"
    refuses(code, "compile", model, "-c", data, "-o", out, "--recipe", path, hint=hint)


def test_over_budget_says_what_would_fit(refuses, tmp_path, model, data):
    common = ["compile", model, "-c", data, "-o", tmp_path / "out"]
    refused = refuses("over-budget", *common, "--ram", "16", "--golden", "1")
    assert "RAM" in refused.err
    refused = refuses("over-budget", *common, "--flash", "1K", "--golden", "1")
    assert "flash" in refused.err


def test_compiler_that_fails_keeps_its_message(refuses, tmp_path, model, data):
    compiler = tmp_path / "broken-gcc"
    compiler.write_text("#!/bin/sh\necho 'the sky is falling' >&2\nexit 3\n")
    compiler.chmod(compiler.stat().st_mode | stat.S_IXUSR)
    refused = refuses(
        "compiler-failed", "compile", model, "-c", data, "-o", tmp_path / "out",
        "--cc", compiler,
    )  # fmt: skip
    assert "the sky is falling" in refused.err


# -- outputs ----------------------------------------------------------------------------------


def test_folder_of_somebody_else(refuses, cli, tmp_path, model, data):
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.txt").write_text("years of work")
    refuses("output-exists", "compile", model, "-c", data, "-o", out, hint="--force")
    (out / "manifest.json").write_text('{"name": "a web page"}')
    refuses("output-exists", "compile", model, "-c", data, "-o", out)
    file = tmp_path / "file"
    file.write_text("x")
    refuses("output-exists", "compile", model, "-c", data, "-o", file)
    refuses("output-not-writable", "compile", model, "-c", data, "-o", file / "out")


def test_earlier_output_survives_a_failure(refuses, tmp_path, artifact, data, model):
    out = tmp_path / "out"
    shutil.copytree(artifact, out)
    refuses("over-budget", "compile", model, "-c", data, "-o", out, "-t", "c", "--ram", "1")
    labels = tmp_path / "labels.npz"
    np.savez(labels, x=np.zeros((2, 2, 6, 6), "f4"), labels=np.zeros(3))
    refuses("wrong-shape", "compile", model, "-c", data, "-o", out, "-t", "c", "--data", labels)


def test_quantize_does_not_overwrite_its_model(refuses, tmp_path, model, data):
    refuses("output-exists", "quantize", model, "-c", data, "-o", model)
    refuses("output-not-writable", "quantize", model, "-c", data, "-o", tmp_path)


def test_calibrate_into_a_folder(refuses, tmp_path, model, data):
    refuses("output-not-writable", "calibrate", model, "-c", data, "-o", tmp_path)


# -- artifacts --------------------------------------------------------------------------------


def test_not_an_artifact(refuses, tmp_path, data):
    folder = tmp_path / "folder"
    for verb in (["run", "-i"], ["verify", "-d"]):
        refuses("not-an-artifact", verb[0], folder, verb[1], data)
    refuses("not-an-artifact", "report", folder)
    folder.mkdir()
    manifest = folder / "manifest.json"
    for text in (
        "", "[]", "{}", '"x"', '{"fewbits": 1}', '{"fewbits": {"manifest": 99}}',
        '{"fewbits": {"manifest": 1}}', "[" * 100_000,
        '{"fewbits": {"manifest": 1}, "inputs": [{}], "outputs": []}',
    ):  # fmt: skip
        manifest.write_text(text)
        refuses("not-an-artifact", "run", folder, "-i", data)


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("bin/model.so", "no-such-file"),
        ("reference/integer.json", "not-an-artifact"),
        ("reference/model.onnx", "not-an-artifact"),
    ],
)
def test_artifact_that_lacks_a_file(refuses, tmp_path, artifact, data, name, code):
    folder = tmp_path / "out"
    shutil.copytree(artifact, folder)
    (folder / name).unlink()
    refuses(code, "verify", folder, "-d", data)


def test_artifact_with_a_damaged_reference(refuses, tmp_path, artifact, data):
    folder = tmp_path / "out"
    shutil.copytree(artifact, folder)
    for text in ("", "{", '{"nodes": []}', "null"):
        (folder / "reference" / "integer.json").write_text(text)
        refuses("not-an-artifact", "verify", folder, "-d", data)


@pytest.mark.parametrize(
    ("arrays", "code"),
    [
        ({"y": np.zeros((2, 2, 6, 6), "f4")}, "unknown-input"),
        ({"x": np.zeros((2, 5), "f4")}, "wrong-shape"),
        ({"x": np.zeros((0, 2, 6, 6), "f4")}, "empty-data"),
        ({"x": np.zeros((2, 2, 6, 6), "c8")}, "wrong-dtype"),
    ],
)
def test_data_for_artifacts(refuses, tmp_path, artifact, arrays, code):
    path = tmp_path / "input.npz"
    np.savez(path, **arrays)
    refuses(code, "run", artifact, "-i", path)
    refuses(code, "verify", artifact, "-d", path)


@pytest.mark.parametrize("labels", [np.zeros(3, int), np.array(1)])
def test_labels(refuses, tmp_path, artifact, labels):
    path = tmp_path / "input.npz"
    np.savez(path, x=np.zeros((2, 2, 6, 6), "f4"), labels=labels)
    refuses("wrong-shape", "verify", artifact, "-d", path, hint="label")


def test_folder_of_data_that_does_not_fit_together(refuses, tmp_path, artifact):
    folder = tmp_path / "samples"
    folder.mkdir()
    np.savez(folder / "a.npz", x=np.zeros((1, 2, 6, 6), "f4"))
    np.savez(folder / "b.npz", x=np.zeros((1, 2, 5, 6), "f4"))
    refuses("wrong-shape", "run", artifact, "-i", folder)


def test_json_errors_are_the_only_output(cli, tmp_path):
    done = cli("inspect", tmp_path / "missing.onnx", "--json")
    assert list(json.loads(done.out)) == ["error"] and done.err == ""


def test_model_without_inputs(refuses, tmp_path):
    graph = helper.make_graph(
        [helper.make_node("Relu", ["w"], ["y"])],
        "g",
        [],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, (2,))],
        [numpy_helper.from_array(np.ones(2, np.float32), "w")],
    )
    path = save(tmp_path, helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]))
    done = refuses("constant-output", "compile", path, "-r", "float", "-o", tmp_path / "out")
    assert "remove the output" in done.err
