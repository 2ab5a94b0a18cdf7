"""A plan's cells, and that a cell's key names everything its result follows from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from fewbits.compiler.sweep import cells as cells_module
from fewbits.compiler.sweep.cells import Cell, cells_of
from fewbits.compiler.sweep.plan import make_plan
from fewbits.errors import FewbitsError


@pytest.fixture(autouse=True)
def _fresh_digests() -> None:
    cells_module.digest_of.cache_clear()
    cells_module._model_digest.cache_clear()


def cells(family: Path, **changes: Any) -> list[Cell]:
    raw = {"models": [family / "small.onnx"], "formats": ["int"], "bits": [4], **changes}
    return cells_of(make_plan(raw))


def test_axes_are_multiplied_and_the_float_model_comes_first(family: Path) -> None:
    found = cells(
        family,
        models=[family / "small.onnx", family / "large.onnx"],
        formats=["int", "nf4"],
        bits=[3, 4, 16],
        blocks=["none", 64],
        solvers=["rtn", "mse"],
    )
    # int at two widths and nf4, in two blocks with two solvers; float16 and float32 once.
    assert len(found) == 2 * ((2 + 1) * 2 * 2 + 2)
    assert [cell.model.name for cell in found] == ["small"] * 14 + ["large"] * 14
    assert found[0].labels.recipe == "float32"
    assert found[1].recipe.passes[1] == {"half_weights": {}}
    described = found[2].describe()
    assert described["passes"] == [
        "canonicalize", "quantize_weights{format=int3; strategy=tensor}",
    ]  # fmt: skip
    assert (described["bits"], described["block"], described["solver"]) == (3, "none", "rtn")


def test_widths_that_a_family_lacks_are_left_out(family: Path) -> None:
    found = cells(family, formats=["nf", "pot"], bits=[4, 8])
    assert [cell.labels.format for cell in found] == ["float32", "nf4", "pot4"]


def test_backends_are_multiplied_with_observers_and_algorithms(family: Path) -> None:
    found = cells(
        family, formats=[], bits=[], backends=["snpe", "vitis"], observers=["minmax", "mse"],
        algorithms=["none", "equalize"],
    )  # fmt: skip
    labels = [(c.labels.format, c.labels.solver) for c in found[1:]]
    assert len(labels) == len(set(labels)) == 8
    assert ("vitis", "equalize mse") in labels
    quantize = found[-1].recipe.build()[-1]
    assert "scale=power-of-two" in str(quantize)
    everyone = {c.labels.format for c in cells(family, formats=[], bits=[], backends=["all"])}
    assert {"tensorrt", "nnie", "fewbits-mcu"} <= everyone
    with pytest.raises(FewbitsError, match="no backend"):
        cells(family, backends=["tensort"])


def test_targets_and_recipes_come_on_top(family: Path) -> None:
    found = cells(family, recipes=["int8"], targets=["cortex-m4", "cortex-m0"])
    assert [(cell.target, cell.labels.recipe) for cell in found] == [
        (target, recipe)
        for target in ("cortex-m4", "cortex-m0")
        for recipe in ("float32", "int8", "grid")
    ]


def test_wrong_options_are_found_before_any_work(family: Path) -> None:
    with pytest.raises(FewbitsError) as caught:
        cells(family, options={"group_sise": 3})
    assert caught.value.code == "unknown-option" and "group_size" in (caught.value.hint or "")
    with pytest.raises(FewbitsError) as caught:
        cells(family, recipes=["int9"])
    assert caught.value.code == "unknown-recipe"


def test_the_same_twice_is_one_cell(family: Path) -> None:
    assert len(cells(family, formats=["int", "int4"])) == 2


def test_keys_follow_from_contents_not_from_places(family: Path, tmp_path: Path) -> None:
    before = [cell.key for cell in cells(family)]
    moved = tmp_path / "moved"
    family.rename(moved)
    assert [cell.key for cell in cells(moved)] == before
    for changes in (
        {"seed": 1}, {"limit": 3}, {"samples": 3}, {"metric": "cosine"}, {"targets": ["host"]},
        {"options": {"ignore": ["head"]}}, {"before": []},
    ):  # fmt: skip
        assert not {cell.key for cell in cells(moved, **changes)[1:]} & set(before), changes
    arrays = dict(np.load(moved / "eval.npz"))
    arrays["x"] = arrays["x"] + 1
    np.savez(moved / "eval.npz", **arrays)
    cells_module.digest_of.cache_clear()
    assert not {cell.key for cell in cells(moved)} & set(before)


def test_external_data_is_part_of_the_model(family: Path) -> None:
    model = onnx.load(family / "small.onnx")
    onnx.save(model, family / "small.onnx", save_as_external_data=True, location="weights.bin",
              size_threshold=0)  # fmt: skip
    before = cells(family)[0].key
    weights = bytearray((family / "weights.bin").read_bytes())
    weights[3] ^= 1
    (family / "weights.bin").write_bytes(weights)
    cells_module.digest_of.cache_clear()
    cells_module._model_digest.cache_clear()
    assert cells(family)[0].key != before
