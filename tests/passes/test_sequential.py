"""A sweep gives the moments that a run of the whole compressed module would give."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fewbits.compiler.importer import import_onnx
from fewbits.errors import FewbitsError
from fewbits.ops.evaluate import Evaluator
from fewbits.passes.calibration import Calibration
from fewbits.passes.layers import Replacement, find_layers, replace_layers
from fewbits.passes.padding import without_padding
from fewbits.passes.sequential import Sweep
from onnx import numpy_helper, parser

_PATH = Path(__file__).parent / "weights" / "conftest.py"
_SPEC = importlib.util.spec_from_file_location("small_models", _PATH)
assert _SPEC is not None and _SPEC.loader is not None
small_models = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(small_models)


def calibration(shape: tuple[int, ...] = (12, 24), count: int = 20) -> Calibration:
    samples = np.random.default_rng(0).normal(size=(count, *shape)).astype(np.float32)
    return Calibration(lambda: [{"x": samples[:11]}, {"x": samples[11:]}], "test", chunk=4)


def coarse(layer: Any) -> np.ndarray:
    return np.round(layer.weight * 4) / 4


def values(module: Any, name: str, data: Calibration) -> np.ndarray:
    return np.concatenate([found[name] for found in data.run(module, [name])])


@pytest.mark.parametrize("budget", [1 << 30, 4096])
def test_moments_are_of_what_the_compressed_layers_before_compute(budget: int) -> None:
    module, data = small_models.module_of(small_models.MODEL), calibration()
    sweep = Sweep(module, data, budget=budget)
    found = {}
    for layer in find_layers(module):
        found[layer.name] = sweep.moments(layer)[0]
        sweep.replace(layer, coarse(layer))
    assert (sweep.spilled > 0) == (budget == 4096)
    whole = replace_layers(module, lambda layer: Replacement(coarse(layer)))
    for name, source in {"q": "x", "v": "x", "h": "a", "y": "r"}.items():
        x = values(whole, source, data).reshape(20 * 12, -1).astype(np.float64)
        assert found[name].samples == 240
        np.testing.assert_allclose(found[name].value, 2 / 240 * x.T @ x, rtol=2e-4, atol=1e-5)


def test_drift_is_how_far_inputs_are_from_those_of_the_module_as_it_was() -> None:
    module, data = small_models.module_of(small_models.MODEL), calibration()
    sweep = Sweep(module, data, reference=True)
    found = {}
    for layer in find_layers(module):
        found[layer.name] = sweep.drift(layer)[0].numpy()
        sweep.replace(layer, coarse(layer))
    whole = replace_layers(module, lambda layer: Replacement(coarse(layer)))
    assert not found["q"].any()
    for name, source in {"h": "a", "y": "r"}.items():
        x, original = (
            values(m, source, data).reshape(20 * 12, -1).astype(np.float64) for m in (whole, module)
        )
        wanted = 2 / 240 * (original - x).T @ x
        np.testing.assert_allclose(found[name], wanted, rtol=1e-3, atol=1e-5)


def test_layers_that_read_the_same_value_share_their_moments() -> None:
    module = small_models.module_of(small_models.MODEL)
    sweep = Sweep(module, calibration())
    layers = {layer.name: layer for layer in find_layers(module)}
    assert sweep.moments(layers["q"])[0] is sweep.moments(layers["k"])[0]
    assert sweep.moments(layers["k"])[0] is sweep.moments(layers["v"])[0]


def test_nothing_is_computed_before_somebody_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    module = small_models.module_of(small_models.MODEL)
    sweep = Sweep(module, None)
    for layer in find_layers(module):
        sweep.replace(layer, coarse(layer))
    ran: list[str] = []
    step = Evaluator.run_step
    monkeypatch.setattr(
        Evaluator, "run_step", lambda self, s, e: ran.append(s.var.name) or step(self, s, e)
    )
    sweep = Sweep(module, calibration())
    layers = {layer.name: layer for layer in find_layers(module)}
    sweep.moments(layers["h"])
    assert "h" not in ran and "y" not in ran and len(ran) == len(set(ran)) * 6  # six chunks


def test_a_convolution_sees_patches_group_by_group() -> None:
    module, data = small_models.module_of(small_models.CONVOLUTIONS), calibration((4, 9, 8))
    sweep = Sweep(module, data)
    for layer in find_layers(module):
        moments = sweep.moments(layer)
        assert len(moments) == layer.groups
        # The layer's output follows from its patches: mean of y^2 per channel is w H w^T / 2.
        result = values(module, layer.name, data)
        channels = result.reshape(20, layer.shape[0], -1).transpose(1, 0, 2)
        wanted = (channels.astype(np.float64).reshape(layer.shape[0], -1) ** 2).mean(1)
        rows = np.split(layer.matrix.astype(np.float64), layer.groups)
        found = [
            ((part @ m.value.double().numpy()) * part).sum(1) / 2
            for part, m in zip(rows, moments, strict=True)
        ]
        np.testing.assert_allclose(np.concatenate(found), wanted, rtol=1e-4, atol=1e-7)


ATTENTION = """
<ir_version: 8, opset_import: ["" : 17]>
g (float[1,6,8] x, int64[1,6] mask) => (float[1,6,8] y)
<float[8,8] wq, float[8,8] wk, float[8,8] w, float one = {1.0}, float low = {-1e9}>
{
  q = MatMul(x, wq)
  k = MatMul(x, wk)
  t = Transpose<perm=[0,2,1]>(k)
  s = MatMul(q, t)
  f = Cast<to=1>(mask)
  i = Sub(one, f)
  axes = Constant<value = int64[1] {1}>()
  u = Unsqueeze(i, axes)
  b = Mul(u, low)
  m = Add(s, b)
  p = Softmax(m)
  a = MatMul(p, x)
  y = MatMul(a, w)
}
"""


def test_padded_tokens_do_not_count() -> None:
    model = parser.parse_model(ATTENTION)
    rng = np.random.default_rng(0)
    for name in ("wq", "wk", "w"):
        array = rng.normal(size=(8, 8)).astype(np.float32)
        model.graph.initializer.append(numpy_helper.from_array(array, name))
    del model.graph.value_info[:]
    module = import_onnx(model).module
    x = rng.normal(size=(5, 6, 8)).astype(np.float32)
    lengths = np.array([6, 1, 3, 4, 2])
    mask = (np.arange(6) < lengths[:, None]).astype(np.int64)
    sweep = Sweep(module, Calibration(lambda: [{"x": x, "mask": mask}], "test", chunk=2))
    first = find_layers(module)[0]
    moments = sweep.moments(first)[0]
    kept = x[mask.astype(bool)].astype(np.float64)
    assert moments.samples == 16
    np.testing.assert_allclose(moments.value, 2 / 16 * kept.T @ kept, rtol=1e-4, atol=1e-5)
    # What has no vector per token is left alone.
    pooled = torch.ones(5, 8)
    assert without_padding(pooled, torch.ones(5, 6, dtype=torch.bool)) is pooled


def test_tables_and_missing_data_are_refused() -> None:
    module = small_models.module_of(small_models.MODEL)
    with pytest.raises(FewbitsError) as caught:
        Sweep(module, None).moments(find_layers(module)[0])
    assert caught.value.code == "no-calibration"
