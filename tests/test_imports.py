"""Each floor imports only from the floors under it, and nothing heavy comes before it is needed."""

from __future__ import annotations

import ast
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FLOORS = {"formats": 0, "ops": 1, "passes": 2, "schedules": 3, "targets": 4, "compiler": 5}
FILES = sorted(
    file
    for floor in FLOORS
    for file in (ROOT / floor).rglob("*.py")
    if "__pycache__" not in file.parts
)


def _imported(file: Path) -> Iterator[tuple[int, str]]:
    """Line and first folder of every import from fewbits, wherever in the file it stands."""
    package = file.relative_to(ROOT).parent.parts
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] == "fewbits":
                    yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            parts = (node.module or "").split(".") if node.module else []
            if node.level:
                # One dot is the file's own package; each further one goes a folder up.
                full = [*package[: len(package) - node.level + 1], *parts]
                names = [full] if full else [[alias.name] for alias in node.names]
                for name in names:
                    yield node.lineno, name[0]
            elif parts and parts[0] == "fewbits":
                yield node.lineno, "fewbits"


def test_floors_import_only_downwards() -> None:
    wrong = []
    for file in FILES:
        floor = file.relative_to(ROOT).parts[0]
        for line, name in _imported(file):
            place = f"{file.relative_to(ROOT)}:{line}"
            if name.split(".")[0] == "fewbits":
                wrong.append(f"{place}: imports between folders are relative")
            elif FLOORS.get(name, -1) > FLOORS[floor]:
                wrong.append(f"{place}: {floor} imports {name}")
    assert not wrong, "\n".join(wrong)


def test_nothing_imports_tests_benchmarks_or_models() -> None:
    wrong = [
        f"{file.relative_to(ROOT)}:{line}"
        for file in FILES
        for line, name in _imported(file)
        if name in ("tests", "benchmarks", "models")
    ]
    assert not wrong


@pytest.mark.parametrize("statement", ["import fewbits", "import fewbits.compiler.cli"])
def test_importing_is_light(statement: str) -> None:
    heavy = ("tvm", "torch", "onnx", "onnxruntime", "matplotlib", "scipy", "unicorn")
    code = f"{statement}; import sys; print([n for n in {heavy} if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_help_answers_at_once() -> None:
    command = [sys.executable, "-c", "from fewbits.compiler.cli import main; main()", "--help"]
    best = 10.0
    for _ in range(3):
        start = time.perf_counter()
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        best = min(best, time.perf_counter() - start)
    assert "sensitivity" in done.stdout
    # 0.3 s alone; other work on the machine may double it.
    assert best < 1.0


def test_public_names_exist() -> None:
    import fewbits

    for name in fewbits.__all__:
        assert getattr(fewbits, name) is not None
    with pytest.raises(AttributeError):
        _ = fewbits.no_such_name
