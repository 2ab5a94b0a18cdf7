"""The functions against float64, over their whole range."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import tvm
from fewbits.schedules.cpu import vector_math
from fewbits.schedules.cpu.intrinsics_emit import index, kernel, lanes_of, store
from scipy import special
from tvm import relax
from tvm.tirx.script import builder as T

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


@pytest.mark.parametrize("lanes", [1, 8])
def test_exponentials_of_differences_to_the_largest(lanes: int) -> None:
    x = np.concatenate([np.linspace(-87, 0, 100_000), [-87.1, -1e9, -np.inf, 0.0, -0.0]])
    x = np.resize(x.astype(np.float32), 100_016)

    def write() -> Callable[[], None]:
        source = T.arg("x", T.buffer((len(x),), "float32"))
        result = T.arg("y", T.buffer((len(x),), "float32"))

        def body() -> None:
            with T.serial(index(0), index(len(x) // lanes)) as i:
                value = vector_math.exp_below_zero(lanes_of(source, lanes, i * lanes))
                store(result, lanes, value, i * lanes)

        return body

    function = kernel("exponentials", write)
    run = tvm.compile(tvm.IRModule({"exponentials": function}), target="llvm")["exponentials"]
    y = tvm.runtime.tensor(np.zeros_like(x))
    run(tvm.runtime.tensor(x), y)
    exact = np.where(x < -87, 0, np.exp(x.astype(np.float64)))
    np.testing.assert_allclose(y.numpy(), exact, rtol=2e-7, atol=0)
