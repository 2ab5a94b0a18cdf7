"""What is installed is what is in the tree, and nothing of one machine is committed."""

from __future__ import annotations

import re
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
FLOORS = ("compiler", "formats", "ops", "passes", "schedules", "targets")


def _project() -> dict[str, Any]:
    if sys.version_info < (3, 11):
        pytest.skip("tomllib came with Python 3.11")
    import tomllib

    return tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))


def _tracked() -> list[Path]:
    done = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if done.returncode:
        pytest.skip("not a git checkout")
    return [ROOT / name for name in done.stdout.split("\0") if name and (ROOT / name).is_file()]


def test_package_list_is_the_tree() -> None:
    listed = _project()["tool"]["setuptools"]["packages"]
    folders = {
        file.parent.relative_to(ROOT)
        for floor in FLOORS
        for file in (ROOT / floor).rglob("*.py")
        if "__pycache__" not in file.parts
    }
    assert sorted(listed) == sorted(
        ["fewbits", *(".".join(["fewbits", *folder.parts]) for folder in folders)]
    )


def test_every_package_has_an_init() -> None:
    missing = [
        file.parent
        for floor in FLOORS
        for file in (ROOT / floor).rglob("*.py")
        if not (file.parent / "__init__.py").is_file()
    ]
    assert not missing


def test_wheel_holds_everything(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pip", "wheel", ".", "--no-deps", "--no-build-isolation", "-q",
         "-w", str(tmp_path)],
        cwd=_copy(tmp_path / "source"), capture_output=True, text=True, check=False,
    )  # fmt: skip
    if "setuptools" in done.stderr and done.returncode:
        pytest.skip(f"no build back end here: {done.stderr.strip().splitlines()[-1]}")
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    held = set(zipfile.ZipFile(wheel).namelist())
    wanted = {
        f"fewbits/{file.relative_to(ROOT).as_posix()}"
        for file in _tracked()
        if file.relative_to(ROOT).parts[0] in FLOORS
    }
    assert wanted and not wanted - held
    assert not {name for name in held if name.startswith(("fewbits/tests", "fewbits/models"))}


def _copy(folder: Path) -> Path:
    """The tracked files elsewhere, so that building leaves nothing in the checkout."""
    for file in _tracked():
        target = folder / file.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(file.read_bytes())
    return folder


def test_nothing_of_one_machine_is_committed() -> None:
    # Spelled so that this file does not match itself.
    forbidden = re.compile(
        r"(?<![\w.])/(?:work|root|home/\w+)/|/tmp/" + r"tmp|index-" + r"url[= ]\s*https?:"
    )
    found = []
    for file in _tracked():
        try:
            text = file.read_text("utf-8")
        except UnicodeDecodeError:
            continue
        for number, line in enumerate(text.splitlines(), 1):
            if forbidden.search(line):
                found.append(f"{file.relative_to(ROOT)}:{number}: {line.strip()[:100]}")
    assert not found, "\n".join(found)


def test_models_that_ship_are_small() -> None:
    models = sorted((ROOT / "models").glob("*.onnx"))
    assert len(models) >= 2
    assert all(model.stat().st_size < 300_000 for model in models)


def test_licence_is_the_whole_text() -> None:
    text = (ROOT / "LICENSE").read_text("utf-8")
    assert "Apache License" in text and "END OF TERMS AND CONDITIONS" in text
