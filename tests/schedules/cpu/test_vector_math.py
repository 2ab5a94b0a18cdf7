"""The functions against float64, over their whole range."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from scipy import special
from tvm import relax

OPERATORS = {
    "exp": relax.op.exp,
    "erf": relax.op.erf,
    "tanh": relax.op.tanh,
    "sigmoid": relax.op.sigmoid,
}
EXACT: dict[str, Callable[..., np.ndarray]] = {
    "exp": np.exp,
    "erf": special.erf,
    "tanh": np.tanh,
    "sigmoid": special.expit,
}


def everywhere() -> np.ndarray:
    """Floats of every exponent and both signs, and a fine grid where things happen."""
    bits = np.arange(0, 0x7F800000, 16411, dtype=np.uint32)
    fine = np.linspace(-110, 110, 200_001, dtype=np.float32)
    magnitudes = bits.view(np.float32)
    return np.concatenate([magnitudes, -magnitudes, fine])


@pytest.mark.parametrize("name", OPERATORS)
def test_error_is_as_stated(built, name: str) -> None:
    x = everywhere()
    run = built(lambda emit, v: emit(OPERATORS[name](v)), ("n",))
    assert run.unscheduled == []
    y = run(x).astype(np.float64)
    with np.errstate(over="ignore"):
        exact = EXACT[name](x.astype(np.float64))
        rounded = exact.astype(np.float32)
    finite = np.isfinite(rounded)
    np.testing.assert_array_equal(y[~finite], rounded[~finite])
    if name in ("exp", "sigmoid"):
        relative, absolute = {"exp": (2e-7, 3e-45), "sigmoid": (4e-7, 3e-39)}[name]
        error = np.abs(y[finite] - exact[finite])
        assert (error <= relative * exact[finite] + absolute).all()
    else:
        assert np.abs(y - exact).max() <= 4e-7
        assert np.abs(y).max() <= 1 + 1.2e-7


@pytest.mark.parametrize("name", OPERATORS)
def test_infinities_and_nan(built, name: str) -> None:
    x = np.array([np.inf, -np.inf, np.nan] * 7, np.float32)
    y = built(lambda emit, v: emit(OPERATORS[name](v)), ("n",))(x)
    limits = {"exp": (np.inf, 0), "erf": (1, -1), "tanh": (1, -1), "sigmoid": (1, 0)}[name]
    np.testing.assert_allclose(y[0::3], limits[0], atol=1.2e-7)
    np.testing.assert_allclose(y[1::3], limits[1], atol=1.2e-7)
    assert np.isnan(y[2::3]).all()


def test_small_arguments_keep_their_digits(built) -> None:
    x = np.float32(10.0) ** -np.arange(3, 38, dtype=np.float32)
    run = built(lambda emit, v: emit(relax.op.tanh(v)), ("n",))
    np.testing.assert_allclose(run(x), x, rtol=1e-6)
