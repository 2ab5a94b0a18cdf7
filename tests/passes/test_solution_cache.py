"""A run that was killed goes on, and ends in the same bytes; damage is noticed and ignored."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fewbits.errors import FewbitsError
from fewbits.formats.compress import compress
from fewbits.formats.parse import parse_format
from fewbits.passes.base import PassContext
from fewbits.passes.cache import VARIABLE, SolutionCache, default_folder
from fewbits.passes.calibration import Calibration
from fewbits.passes.layers import find_layers
from fewbits.passes.weights import engine
from fewbits.passes.weights.prune import Prune
from fewbits.passes.weights.quantize_weights import QuantizeWeights

_PATH = Path(__file__).parent / "weights" / "conftest.py"
_SPEC = importlib.util.spec_from_file_location("small_models", _PATH)
assert _SPEC is not None and _SPEC.loader is not None
small_models = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(small_models)

GPTQ = QuantizeWeights(solver="gptq", group_size=8)


class Killed(BaseException):
    """As a power cut: nothing catches it."""


@pytest.fixture
def solved(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many matrices the solver was given, first entry; it dies at the second entry's."""
    counter = [0, 10**9]
    solve = engine.solve

    def counting(*args: Any, **options: Any) -> Any:
        if counter[0] >= counter[1]:
            raise Killed
        counter[0] += 1
        return solve(*args, **options)

    monkeypatch.setattr(engine, "solve", counting)
    return counter


def context(folder: Path | None, seed: int = 1) -> PassContext:
    samples = np.random.default_rng(seed).normal(size=(8, 12, 24)).astype(np.float32)
    return PassContext(calibration=Calibration(lambda: [{"x": samples}], "test"), cache=folder)


def contents(module: Any) -> dict[str, bytes]:
    return {
        layer.name: b"".join(p.value.numpy().tobytes() for p in layer.source.args[0].fields)  # type: ignore[union-attr]
        for layer in find_layers(module)
    }


@pytest.mark.parametrize("made", [GPTQ, Prune()], ids=["quantize_weights", "prune"])
def test_a_killed_run_goes_on_where_it_stopped(
    tmp_path: Path, solved: list[int], made: Any
) -> None:
    module = small_models.module_of(small_models.MODEL)
    whole = contents(made.apply(module, context(None)))
    assert solved[0] == 5
    solved[:] = [0, 3]
    with pytest.raises(Killed):
        made.apply(module, context(tmp_path))
    solved[:] = [0, 10**9]
    resumed = made.apply(module, context(tmp_path))
    assert solved[0] == 2  # the fourth and the fifth layer
    assert contents(resumed) == whole
    solved[0] = 0
    again = context(tmp_path)
    assert contents(made.apply(module, again)) == whole and solved[0] == 0
    fresh = context(None)
    made.apply(module, fresh)
    assert [(n.layer, n.message) for n in again.notes] == [
        (n.layer, n.message) for n in fresh.notes
    ]


def test_whatever_decides_a_solution_is_in_its_key(tmp_path: Path, solved: list[int]) -> None:
    module = small_models.module_of(small_models.MODEL)
    GPTQ.apply(module, context(tmp_path))
    for changed, model, seed, fresh in (
        (GPTQ, module, 1, 0),
        (GPTQ, module, 2, 5),
        (GPTQ, small_models.module_of(small_models.MODEL, 7), 1, 5),
        (QuantizeWeights(solver="gptq", group_size=8, damping=0.02), module, 1, 5),
        # A layer's inputs depend on the layers before it, so what follows `v` is solved anew.
        (QuantizeWeights(solver="gptq", group_size=8, ignore=("v",)), module, 1, 2),
        (QuantizeWeights(solver="gptq", group_size=8, ignore=("y",)), module, 1, 0),
    ):
        solved[0] = 0
        changed.apply(model, context(tmp_path, seed))
        assert solved[0] == fresh, changed


@pytest.mark.parametrize("damage", [b"", b"\x00" * 100, None])
def test_damaged_entries_are_ignored_and_said(
    tmp_path: Path, solved: list[int], damage: bytes | None
) -> None:
    module = small_models.module_of(small_models.MODEL)
    whole = contents(GPTQ.apply(module, context(tmp_path)))
    entries = sorted(tmp_path.rglob("*.safetensors"))
    assert len(entries) == 5
    broken = entries[2].read_bytes()
    entries[2].write_bytes(broken[: len(broken) // 2] if damage is None else damage)
    solved[0] = 0
    made = context(tmp_path)
    assert contents(GPTQ.apply(module, made)) == whole
    assert solved[0] == 1
    assert sum("damaged cache entry" in note.message for note in made.notes) == 1
    assert len(entries[2].read_bytes()) == len(broken)  # written anew


def test_solvers_without_data_leave_no_entries(tmp_path: Path) -> None:
    module = small_models.module_of(small_models.MODEL)
    QuantizeWeights().apply(module, context(tmp_path))
    assert not list(tmp_path.rglob("*"))


def test_a_folder_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "solutions").write_text("a file")
    tensor = compress(np.ones((2, 2)), parse_format("int4"))
    with pytest.raises(FewbitsError) as caught:
        SolutionCache(tmp_path).put("ab" * 32, tensor, {})
    assert caught.value.code == "output-not-writable"


def test_the_environment_moves_the_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "/somewhere")
    assert default_folder() == Path("/somewhere")
    monkeypatch.delenv(VARIABLE)
    assert default_folder().name == "fewbits"
