"""Pruned weights: exact shares, exact bits, and better choices than magnitudes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from fewbits.errors import FewbitsError
from fewbits.ops.evaluate import Evaluator
from fewbits.passes.base import PassContext, make_pass, parse_pass
from fewbits.passes.layers import find_layers
from fewbits.passes.weights.prune import Prune


def zeros(module: Any) -> dict[str, float]:
    return {layer.name: float((layer.weight == 0).mean()) for layer in find_layers(module)}


@pytest.mark.parametrize("solver", ["magnitude", "wanda", "sparsegpt", "obs"])
@pytest.mark.parametrize("sparsity", [0.5, "2:4", "1:4"])
def test_exactly_so_many_weights_become_zero(
    module: Any, context: Any, solver: str, sparsity: float | str
) -> None:
    made = context()
    small = make_pass("prune", {"solver": solver, "sparsity": sparsity, "ignore": ["v"]}).apply(
        module, made
    )
    share = 0.75 if sparsity == "1:4" else 0.5
    found = zeros(small)
    assert found.pop("v") == 0
    assert all(abs(value - share) < 1e-9 for value in found.values()), found
    sizes = {layer.name: layer.tensor for layer in find_layers(small) if layer.tensor}
    for note in made.notes:
        if "total_bits" in note.data:
            tensor = sizes[note.layer]
            kept = round((1 - share) * tensor.size)
            places = tensor.size if sparsity == 0.5 else 2 * kept
            assert note.data["total_bits"] == tensor.total_bits == 32 * kept + places


def test_second_order_choices_lose_less_on_every_layer(module: Any, context: Any) -> None:
    losses: dict[str, dict[str, float]] = {}
    for solver in ("magnitude", "sparsegpt", "obs"):
        for layer in ("q", "v", "h"):
            made = context()
            # `wanda` on the rest would change inputs; only one layer at a time is pruned.
            Prune(solver=solver, targets=(layer,)).apply(module, made)  # type: ignore[arg-type]
            (note,) = [n for n in made.notes if "loss" in n.data]
            losses.setdefault(layer, {})[solver] = _output_error(module, solver, layer, context())
            assert note.data["loss"] >= 0
    for layer, found in losses.items():
        assert found["obs"] <= found["sparsegpt"] <= found["magnitude"], layer


def _output_error(module: Any, solver: str, name: str, context: PassContext) -> float:
    """Squared error of the layer's own output, whose input is not changed."""
    small = make_pass("prune", {"solver": solver, "targets": [name]}).apply(module, context)
    assert context.calibration is not None
    (batch,) = context.calibration.batches()
    one, other = (list(Evaluator(m).batched(batch, [name])) for m in (module, small))
    return sum(float(((a[name] - b[name]) ** 2).sum()) for a, b in zip(one, other, strict=True))


def test_values_are_kept_in_sixteen_bits(module: Any) -> None:
    options = {"solver": "magnitude", "sparsity": "2:4", "storage": "float16"}
    small = make_pass("prune", options).apply(module, PassContext())
    float_weights = {layer.name: layer.weight for layer in find_layers(module)}
    for layer in find_layers(small):
        assert layer.tensor is not None and layer.tensor.bits_per_value == 9  # (16 + 2) / 2
        kept = layer.weight != 0
        wanted = float_weights[layer.name].astype(np.float16).astype(np.float32)
        np.testing.assert_array_equal(layer.weight[kept], wanted[kept])


def test_options_round_trip_and_overrides_hold(module: Any) -> None:
    options = {"solver": "magnitude", "overrides": {"h": {"sparsity": "1:4"}}}
    made = make_pass("prune", options)
    assert parse_pass(str(made)) == made
    found = zeros(made.apply(module, PassContext()))
    assert found["h"] == 0.75 and found["q"] == 0.5


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"solver": "gptq"}, "unknown-option"),
        ({"sparsity": "4:2"}, "bad-sparsity"),
        ({"sparsity": -0.5}, "bad-sparsity"),
        ({"storage": "float8"}, "unknown-option"),
        ({"overrides": {"q": {"targets": []}}}, "unknown-option"),
        ({"solver": "magnitude", "sparsity": "2:5"}, "bad-sparsity"),
    ],
)
def test_nonsense_is_refused(module: Any, options: dict[str, Any], code: str) -> None:
    with pytest.raises(FewbitsError) as caught:
        make_pass("prune", options).apply(module, PassContext())
    assert caught.value.code == code
