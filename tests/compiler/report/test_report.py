"""The report stands alone, shows every layer, and no name of a model can break the page."""

from __future__ import annotations

import copy
import html.parser
import json
import re
from pathlib import Path
from typing import Any

import pytest
from fewbits.compiler.report import write_report

LAYER = {
    "name": "conv", "operator": "conv2d", "kernel": "fb_conv2d", "macs": 1000, "live_bytes": 96,
    "scratch_bytes": 32, "flash_bytes": 40, "instructions": 2000, "snr_db": 31.5, "note": None,
}  # fmt: skip
PORT = {
    "name": "image", "shape": [1, 8], "dtype": "int8", "scale": 0.1, "zero_point": -3,
    "real_dtype": "float32",
}  # fmt: skip
MANIFEST: dict[str, Any] = {
    "fewbits": {"version": "0", "manifest": 1},
    "model": {"name": "net", "sha256": "0" * 64, "opset": 17},
    "target": "cortex-m4",
    "board": None,
    "recipe": {"name": "int8", "passes": ["canonicalize", "quantize{ignore=['a']}"]},
    "seed": 0,
    "calibration": {"source": "data.npz", "samples": 10, "sha256": "1" * 64},
    "inputs": [PORT],
    "outputs": [{**PORT, "name": "scores", "scale": None}],
    "macs": 1000,
    "instructions_per_inference": 2500,
    "flash_bytes": 1000,
    "ram_bytes": 96,
    "text_bytes": 900,
    "weights_bytes": 100,
    "score": None,
    "float_layers": [],
    "layers": [LAYER],
    "notes": [],
    "compiler": "cc",
    "golden": {"samples": 4, "exact": True},
}


class _Page(html.parser.HTMLParser):
    """Collects text, and the attributes that would load something."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text, self.loads, self.tags = "", [], set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        for name, value in attrs:
            local = (value or "").startswith("#")
            if name in ("src", "href", "xlink:href") and not local:
                self.loads.append((tag, value))

    def handle_data(self, data: str) -> None:
        self.text += data


def report(folder: Path, **changes: Any) -> _Page:
    write_report(folder, {**copy.deepcopy(MANIFEST), **changes})
    return _Page((folder / "report.html").read_text("utf-8"))


def test_shows_every_figure_and_loads_nothing(tmp_path: Path) -> None:
    page = report(tmp_path)
    assert not page.loads and "script" not in page.tags
    assert "@import" not in page.text
    for figure in ("2,500", "1,000 B", "96 B", "31.5", "80.0", "4 of 4", "data.npz"):
        assert figure in page.text, figure


@pytest.mark.parametrize(
    "name",
    ["<script>alert(1)</script>", '"><img src=x>', "a$b$c", "日本", "line\nbreak", "\\frac{"],
)
def test_names_cannot_break_the_page(name: str, tmp_path: Path) -> None:
    layer = {**LAYER, "name": name, "note": name}
    page = report(tmp_path, layers=[layer], float_layers=[name], notes=[name])
    assert not {"script", "img"} & page.tags
    assert page.text.count(name) >= 3


def test_random_calibration_and_float_layers_are_marked(tmp_path: Path) -> None:
    calibration = {**MANIFEST["calibration"], "source": "random"}
    page = report(tmp_path, calibration=calibration, float_layers=["conv"])
    assert "random data" in page.text and "floating point: conv" in page.text
    assert "0.0 % in integers" in page.text


def test_host_and_unknown_figures_leave_gaps(tmp_path: Path) -> None:
    layer = {**LAYER, "instructions": None, "snr_db": None, "operator": "something else"}
    page = report(tmp_path, layers=[layer], instructions_per_inference=None, calibration=None)
    assert "Where the instructions go" not in page.text
    assert "Where the RAM goes" in page.text


def test_evaluation_is_shown(tmp_path: Path) -> None:
    evaluation = {
        "samples": 500, "exact": 499, "score": 0.95, "float_score": 0.96, "snr_db": 40.0,
        "agreement": 0.99, "instructions": [1, 2.0, 3],
    }  # fmt: skip
    page = report(tmp_path, evaluation=evaluation)
    assert "0.9500" in page.text and "499 of 500" in page.text


def test_same_manifest_same_bytes(tmp_path: Path) -> None:
    report(tmp_path)
    first = (tmp_path / "report.html").read_bytes()
    report(tmp_path)
    assert (tmp_path / "report.html").read_bytes() == first
    stored = json.loads((tmp_path / "report.json").read_text("utf-8"))
    assert stored["ram_bytes"] == 96
    assert not re.search(r"/tmp/", first.decode())


def test_unfinished_artifacts_have_a_report(tmp_path: Path) -> None:
    unfinished = {k: v for k, v in MANIFEST.items() if k not in ("compiler", "golden")}
    unfinished |= {"flash_bytes": None, "text_bytes": None, "instructions_per_inference": None}
    write_report(tmp_path, unfinished)
    assert "Where the RAM goes" in (tmp_path / "report.html").read_text("utf-8")
