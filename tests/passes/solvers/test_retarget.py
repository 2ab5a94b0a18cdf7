"""Retargeted weights are the least squares answer on the inputs that a layer really gets."""

from __future__ import annotations

import pytest
import torch
from fewbits.passes.solvers.hessian import Hessian
from fewbits.passes.solvers.retarget import retarget
from fewbits.passes.solvers.threads import one_thread


def _case() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """A weight, the float model's inputs, and inputs with an error that depends on them."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(500, 12, generator=generator, dtype=torch.float64)
    mixed = x + 0.3 * x @ torch.randn(12, 12, generator=generator, dtype=torch.float64)
    return torch.randn(7, 12, generator=generator, dtype=torch.float64), x, mixed


def _moments(original: torch.Tensor, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    hessian = Hessian(x.shape[1], dtype=torch.float64)
    hessian.add(x)
    return 2 / len(x) * (original - x).T @ x, hessian.value


def test_without_damping_it_is_least_squares() -> None:
    weight, original, x = _case()
    found = retarget(weight, *_moments(original, x), damping=0.0)
    wanted = torch.linalg.lstsq(x, original @ weight.T).solution.T
    torch.testing.assert_close(found, wanted)


def test_damping_holds_the_weights_near_the_original() -> None:
    weight, original, x = _case()
    moments = _moments(original, x)
    distances, losses = [], []
    for damping in (0.0, 0.01, 0.1, 1.0):
        found = retarget(weight, *moments, damping=damping)
        distances.append(float((found - weight).norm()))
        losses.append(float((x @ found.T - original @ weight.T).norm()))
    assert distances == sorted(distances, reverse=True) and losses == sorted(losses)
    assert losses[-1] < float(((x - original) @ weight.T).norm())


def test_inputs_without_drift_leave_the_weight_alone() -> None:
    weight, x, _ = _case()
    assert torch.equal(retarget(weight, *_moments(x, x)), weight)


def test_dead_inputs_are_harmless() -> None:
    weight, original, x = _case()
    x[:, 3] = 0
    found = retarget(weight, *_moments(original, x))
    assert torch.equal(found[:, 3], weight[:, 3]) and bool(torch.isfinite(found).all())


def test_one_thread_ends_with_the_threads_of_before() -> None:
    before = torch.get_num_threads()
    with pytest.raises(ValueError, match="inside"), one_thread():
        assert torch.get_num_threads() == 1
        raise ValueError("inside")
    assert torch.get_num_threads() == before
