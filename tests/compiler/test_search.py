"""Mixed precision search: exact under its budget, and an ordinary recipe."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import onnx
import pytest
from fewbits.compiler.recipe import Recipe
from fewbits.compiler.search import Choice, _assign, _cost, parse_candidate, search_recipe
from fewbits.errors import FewbitsError
from onnx import numpy_helper, parser

MODEL = """
<ir_version: 8, opset_import: ["" : 17]>
g (float[1,32] x) => (float[1,8] y)
<float[32,48] a, float[48,48] b, float[48,8] c>
{
  h = MatMul(x, a)
  r = Relu(h)
  k = MatMul(r, b)
  s = Relu(k)
  y = MatMul(s, c)
}
"""


@pytest.fixture(scope="module")
def model() -> onnx.ModelProto:
    built = parser.parse_model(MODEL)
    rng = np.random.default_rng(0)
    for value in list(built.graph.value_info):
        shape = [d.dim_value for d in value.type.tensor_type.shape.dim]
        array = rng.standard_t(4, size=shape).astype(np.float32) / shape[0] ** 0.5
        built.graph.initializer.append(numpy_helper.from_array(array, value.name))
    del built.graph.value_info[:]
    return built


DATA = {"x": np.random.default_rng(1).normal(size=(6, 32)).astype(np.float32)}
CANDIDATES = ["int8", "int4-g16", "int2-g8"]


def test_the_budget_holds_and_less_budget_means_more_damage(model: Any) -> None:
    found = [search_recipe(model, CANDIDATES, bits, "bits", DATA) for bits in (8.5, 5.5, 4.3)]
    assert all(f.cost <= f.budget for f in found)
    damages = [f.predicted for f in found]
    assert damages == sorted(damages)
    assert damages[0] < damages[-1]
    assert all(f.measured < 1 for f in found)


def test_the_answer_is_a_recipe(model: Any) -> None:
    found = search_recipe(model, CANDIDATES, 5.5, "bits", DATA)
    assert Recipe.model_validate({"passes": found.recipe.passes}).passes[0] == "canonicalize"
    named = [n for p in found.recipe.passes[1:] for n in p["quantize_weights"]["targets"]]  # type: ignore[index]
    assert sorted(named) == sorted(c.layer for c in found.choices)
    assert "quantize_weights" in found.recipe.to_yaml()


def test_bytes_and_bit_operations_are_budgets_too(model: Any) -> None:
    small = search_recipe(model, ["float", *CANDIDATES], 3000, "bytes", DATA)
    assert small.cost <= 3000
    macs = 32 * 48 + 48 * 48 + 48 * 8
    work = search_recipe(model, CANDIDATES, macs * 8 * 6, "bops", DATA, activation_bits=8)
    assert work.cost <= macs * 48


def test_an_impossible_budget_is_refused(model: Any) -> None:
    with pytest.raises(FewbitsError, match="smallest candidates need"):
        search_recipe(model, CANDIDATES, 1.5, "bits", DATA)
    with pytest.raises(FewbitsError, match="no budget"):
        search_recipe(model, CANDIDATES, -1, "bits", DATA)
    with pytest.raises(FewbitsError, match="sample inputs"):
        search_recipe(model, CANDIDATES, 8.5, "bits")


@pytest.mark.parametrize("seed", range(5))
def test_the_assignment_is_the_best_of_all(seed: int) -> None:
    rng = np.random.default_rng(seed)
    table = [
        Choice(f"l{layer}", f"c{i}", float(rng.uniform()), int(rng.integers(10, 99)), 10, 10)
        for layer in range(4)
        for i in range(3)
    ]
    costs = np.array([_cost(choice, "bits", 32) for choice in table])
    limit = float(costs.reshape(4, 3).min(1).sum() * 1.4)
    combinations = [
        [layer * 3 + i for layer, i in enumerate(picks)]
        for picks in itertools.product(range(3), repeat=4)
    ]
    allowed = [c for c in combinations if costs[c].sum() <= limit]
    best = min(sum(table[i].damage for i in c) for c in allowed)
    picked = _assign(table, costs, limit, 3, "bits")
    assert costs[picked].sum() <= limit
    assert sum(table[i].damage for i in picked) == pytest.approx(best)


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("int8", {"format": "int8", "strategy": "channel"}),
        ("int4-narrow-g64", {"format": "int4-narrow", "strategy": "group", "group_size": 64}),
        ("nf4-b64", {"format": "nf4", "strategy": "block", "group_size": 64}),
    ],
)
def test_candidates_are_read(text: str, options: dict[str, Any]) -> None:
    assert parse_candidate(text).options == {**options, "scale_storage": "float16"}


def test_unknown_formats_are_refused() -> None:
    with pytest.raises(FewbitsError):
        parse_candidate("int99-g64")
