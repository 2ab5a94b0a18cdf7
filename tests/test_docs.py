"""The documentation agrees with the code: links, examples, codes, names."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parent.parent
DOCS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
CODE = ("compiler", "formats", "ops", "passes", "schedules", "targets")
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
_EXAMPLE = re.compile(r"^```python test\n(.*?)^```", re.MULTILINE | re.DOTALL)
_CODE_NAME = re.compile(r"[a-z]+(-[a-z]+)+|internal")


def _slug(title: str) -> str:
    """A heading's anchor, as GitHub makes it."""
    kept = re.sub(r"[^\w\- ]", "", title.strip().lower())
    return kept.replace(" ", "-")


@pytest.mark.parametrize("page", DOCS, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    broken = []
    for link in _LINK.findall(_FENCE.sub("", page.read_text("utf-8"))):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path) if path else page
        if not target.exists():
            broken.append(link)
        elif anchor and target.suffix == ".md":
            titles = re.findall(r"^#+ (.*)$", target.read_text("utf-8"), re.MULTILINE)
            if anchor not in map(_slug, titles):
                broken.append(link)
    assert not broken


@pytest.mark.parametrize("page", DOCS, ids=lambda page: page.name)
def test_files_that_are_named_exist(page: Path) -> None:
    names = re.findall(
        r"`((?:compiler|formats|ops|passes|targets|tests|benchmarks|models|docs)/[\w./-]*)`",
        _FENCE.sub("", page.read_text("utf-8")),
    )
    assert not [name for name in names if not (ROOT / name).exists()]


@pytest.mark.parametrize(
    "page", [p for p in DOCS if _EXAMPLE.search(p.read_text("utf-8"))], ids=lambda page: page.name
)
def test_examples_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("sklearn", reason="the digits come with scikit-learn")
    from fewbits.passes import base

    monkeypatch.chdir(tmp_path)
    base.pass_names()  # loads what there is to load, before a copy takes its place
    monkeypatch.setattr(base, "_PASSES", dict(base._PASSES))  # an example registers a pass
    monkeypatch.syspath_prepend(str(ROOT / "models"))
    from digits import load_digits  # pyright: ignore[reportMissingImports]

    training, _, images, _ = load_digits()
    names: dict[str, Any] = {
        "__name__": __name__,
        "model": ROOT / "models" / "digits_dscnn.onnx",
        "calibration": {"image": training[:50]},
        "images": images[:5],
    }
    for number, example in enumerate(_EXAMPLE.findall(page.read_text("utf-8"))):
        # `__name__` is what dataclasses look their module up by.
        exec(compile(example, f"{page.name}:{number}", "exec"), names)
    if page.name == "quickstart.md":
        assert names["outputs"]["probabilities"].shape == (5, 10)
        assert np.isclose(names["outputs"]["probabilities"].sum(1), 1, atol=0.05).all()


def _raised_codes() -> Iterator[str]:
    """Every code that is written where an error is made, directly or through a helper."""
    files = [ROOT / "errors.py", *(f for folder in CODE for f in (ROOT / folder).rglob("*.py"))]
    for file in files:
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if not isinstance(node, ast.Call) or not node.args:
                continue
            name = node.func.attr if isinstance(node.func, ast.Attribute) else ""
            name = node.func.id if isinstance(node.func, ast.Name) else name
            first = node.args[0]
            makes = name in ("FewbitsError", "__init__")  # its own, or that of a kind of it
            if not (makes or name.lstrip("_") in ("error", "refuse", "fail")):
                continue
            for part in ast.walk(first):
                text = part.value if isinstance(part, ast.Constant) else None
                if isinstance(text, str) and _CODE_NAME.fullmatch(text):
                    yield text


def test_every_error_code_is_documented() -> None:
    text = (ROOT / "docs" / "errors.md").read_text("utf-8")
    rows = re.findall(r"^\| `([a-z-]+)` \|", text, re.MULTILINE)
    assert rows == sorted(set(rows))
    assert set(rows) == set(_raised_codes())


def test_recipes_page_names_every_pass_option_observer_and_recipe() -> None:
    import dataclasses

    from fewbits.compiler.recipe import recipe_names
    from fewbits.passes.base import make_pass, pass_names

    text = (ROOT / "docs" / "recipes.md").read_text("utf-8")
    for name in pass_names():
        assert f"`{name}`" in text, name
        for field in dataclasses.fields(make_pass(name)):
            assert f"`{field.name}`" in text, f"{name}: {field.name}"
    for name in (*recipe_names(), "minmax", "moving", "percentile", "mse", "entropy"):
        assert f"`{name}`" in text, name


def test_readme_names_every_target_and_board() -> None:
    from fewbits.compiler.recipe import recipe_names
    from fewbits.targets.catalogue import all_targets
    from fewbits.targets.mcu.boards import BOARDS

    text = (ROOT / "README.md").read_text("utf-8")
    names = [*(target.name for target in all_targets()), *BOARDS, *recipe_names()]
    assert not [name for name in names if f"`{name}`" not in text]


def test_architecture_lists_every_integer_operator() -> None:
    import fewbits.ops.integer  # noqa: F401
    from fewbits.ops import registry

    text = (ROOT / "docs" / "architecture.md").read_text("utf-8")
    ours = [name for name in registry._MEANINGS if name.startswith("fewbits.")]
    assert len(ours) >= 9
    assert not [name for name in ours if f"`{name}`" not in text]
