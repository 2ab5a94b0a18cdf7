"""What a plan may say, and what it is told when it says something else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from fewbits.compiler.sweep.formats import format_name
from fewbits.compiler.sweep.plan import load_plan, make_plan
from fewbits.errors import FewbitsError
from fewbits.formats.parse import parse_format


def good(family: Path, **changes: Any) -> dict[str, Any]:
    return {"models": [family / "small.onnx"], "formats": ["int"], "bits": [4], **changes}


def test_a_file_is_read_relative_to_itself(family: Path) -> None:
    (family / "plan.yaml").write_text(
        "models: [small.onnx, {path: large.onnx, name: big}]\n"
        "formats: [int, nf4]\nbits: [3, 16]\nblocks: [none, 64, g32, channel]\n"
    )
    plan = load_plan(family / "plan.yaml")
    assert [model.name for model in plan.models] == ["small", "big"]
    assert plan.models[0].path == family / "small.onnx"
    assert plan.models[1].calibration == family / "calibration.npz"
    assert plan.models[1].evaluation == family / "eval.npz"
    assert plan.blocks == ("none", "64", "g32", "channel")
    assert plan.before == ("canonicalize",)


@pytest.mark.parametrize(
    ("changes", "code", "words"),
    [
        ({"formatz": ["int"]}, "bad-plan", "did you mean 'formats'"),
        ({"models": [{"path": "a.onnx", "evalation": "b"}]}, "bad-plan", "'evaluation'"),
        ({"formats": ["itn"]}, "unknown-format", "did you mean 'int'"),
        ({"formats": ["nf4"], "bits": [9]}, "bad-plan", "9 bits"),
        ({"bits": [1]}, "bad-plan", "1 bits"),
        ({"bits": []}, "bad-plan", "need `bits`"),
        ({"formats": []}, "bad-plan", "nothing to try"),
        ({"blocks": ["-3"]}, "bad-plan", "'-3' is no block"),
        ({"blocks": ["0"]}, "bad-plan", "'0' is no block"),
        ({"models": []}, "bad-plan", "models"),
        ({"models": ["missing.onnx"]}, "no-such-file", "missing.onnx"),
        ({"metric": "bleu"}, "bad-plan", "metric"),
        ({"size": "volume"}, "bad-plan", "size"),
        ({"limit": 0}, "bad-plan", "limit"),
        ({"seed": "x"}, "bad-plan", "seed"),
    ],
)
def test_mistakes_are_named(family: Path, changes: dict, code: str, words: str) -> None:
    with pytest.raises(FewbitsError) as caught:
        make_plan(good(family, **changes))
    assert caught.value.code == code
    assert words in str(caught.value)


def test_names_must_differ(family: Path, tmp_path: Path) -> None:
    (tmp_path / "small.onnx").write_bytes(b"")
    other = {"path": tmp_path / "small.onnx", "evaluation": family / "eval.npz"}
    with pytest.raises(FewbitsError, match="two models are called 'small'"):
        make_plan(good(family, models=[family / "small.onnx", other]))
    plan = make_plan(good(family, models=[family / "small.onnx", {**other, "name": "b"}]))
    assert [model.name for model in plan.models] == ["small", "b"]


def test_a_model_without_evaluation_is_refused(family: Path) -> None:
    (family / "eval.npz").unlink()
    with pytest.raises(FewbitsError, match="no evaluation") as caught:
        make_plan(good(family))
    assert "labels" in (caught.value.hint or "")


@pytest.mark.parametrize("text", ["- 1", "a: [", "", "\x00", "&a [*a]"])
def test_files_that_are_no_plan(tmp_path: Path, text: str) -> None:
    (tmp_path / "plan.yaml").write_text(text)
    with pytest.raises(FewbitsError) as caught:
        load_plan(tmp_path / "plan.yaml")
    assert caught.value.code == "bad-plan"
    with pytest.raises(FewbitsError, match="cannot read the plan"):
        load_plan(tmp_path / "missing.yaml")


@pytest.mark.parametrize(
    ("family_name", "bits", "name"),
    [
        ("int", 4, "int4"),
        ("fp", 4, "fp4_e2m1"),
        ("fp", 8, "fp8_e4m3fn"),
        ("fp-e2", 3, "fp3_e2m0"),
        ("fp-e3", 3, None),
        ("fp-e3", 5, "fp5_e3m1"),
        ("nf", 4, "nf4"),
        ("nf", 3, None),
        ("quantile", 5, "quantile5"),
        ("dynamic", 3, None),
        ("dynamic", 6, "dynamic6"),
        ("flint", 8, "flint8"),
        ("pot", 7, None),
        ("ant", 4, "ant4"),
        ("fp6_e2m3", None, "fp6_e2m3"),
    ],
)
def test_families_and_widths_name_formats(family_name: str, bits: int | None, name) -> None:
    assert format_name(family_name, bits) == name
    if name is not None and family_name != "ant":
        assert bits is None or parse_format(name).bits == bits
