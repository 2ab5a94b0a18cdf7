"""Observers: streaming equals batch, and each recommends what its name says."""

from __future__ import annotations

import numpy as np
import pytest
from fewbits.errors import FewbitsError
from fewbits.formats.affine import AffineFormat
from fewbits.passes.observers import BINS, make_observer

GRID = AffineFormat()
ALL = ("minmax", "moving", "percentile", "mse", "entropy")
HISTOGRAMS = ("percentile", "mse", "entropy")


def seen(name: str, *pieces: np.ndarray, **options: float):
    observer = make_observer(name, **options)
    for piece in pieces:
        observer.update(piece)
    return observer.range(GRID)


def error(values: np.ndarray, bounds: tuple[float, float]) -> float:
    chosen = GRID.parameters(*bounds)
    codes = GRID.encode(values, np.float32(chosen.scale), chosen.zero_point).astype(float)
    return float((((codes - chosen.zero_point) * chosen.scale - values) ** 2).mean())


@pytest.mark.parametrize("name", ("minmax", *HISTOGRAMS))
def test_streaming_equals_batch(name):
    """Up to a bin: a histogram that grew has merged bins where one that started wide has not."""
    values = np.random.default_rng(0).standard_normal(5000) * 3 + 1
    whole = seen(name, values)
    growing = seen(name, *np.split(values * np.linspace(0.01, 1, 5000), 10))
    again = seen(name, values * np.linspace(0.01, 1, 5000))
    assert seen(name, *np.array_split(values, 7)) == pytest.approx(whole, abs=0.25)
    assert growing == pytest.approx(again, abs=0.25)


@pytest.mark.parametrize("name", HISTOGRAMS)
def test_order_does_not_matter(name):
    values = np.random.default_rng(1).standard_normal(4000)
    pieces = [values[:10] * 1e-3, values[10:2000], values[2000:] * 50]
    assert seen(name, *pieces) == seen(name, *pieces[::-1])


@pytest.mark.parametrize("name", ALL)
def test_nothing_zeros_and_constants(name):
    assert seen(name) == (0.0, 0.0)
    assert seen(name, np.array([])) == (0.0, 0.0)
    assert seen(name, np.zeros(10)) == (0.0, 0.0)
    for value in (3.25, -7.5, 1e-30, 1e30):
        low, high = seen(name, np.full(10, value), np.array([]))
        assert min(low, 0) <= value <= max(high, 0)
        chosen = GRID.parameters(low, high)
        assert chosen.scale > 0 and np.isfinite(chosen.scale)


def test_minmax_is_exact():
    assert seen("minmax", np.array([1.0, -2.0]), np.array([[5.0], [0.5]])) == (-2.0, 5.0)


def test_moving_average_by_hand():
    low, high = seen("moving", np.array([-1.0, 1.0]), np.array([-2.0, 3.0]))
    assert (low, high) == pytest.approx((-1.1, 1.2))


def test_percentile_by_hand():
    values = np.concatenate([np.linspace(-1, 1, 9998), [-100.0, 100.0]])
    low, high = seen("percentile", values, percentile=99.9)
    bin_width = 256 / BINS
    assert low == pytest.approx(-1, abs=2 * bin_width)
    assert high == pytest.approx(1, abs=2 * bin_width)
    assert seen("percentile", values, percentile=100.0) == (-100.0, 100.0)


def test_percentile_counts_zeros():
    values = np.concatenate([np.zeros(100_000), [50.0] * 5])
    _, high = seen("percentile", values, percentile=99.9)
    assert high < 1.0


@pytest.mark.parametrize("name", ("mse", "entropy"))
def test_outliers_are_clipped_only_when_it_pays(name):
    random = np.random.default_rng(2)
    normal = random.standard_normal(20_000)
    low, high = seen(name, normal)
    assert -6 < low < -2 and 2 < high < 6
    _, clipped = seen(name, np.concatenate([normal, [12.0]]))
    assert clipped < 11.5


def test_mse_is_never_worse_than_minmax():
    random = np.random.default_rng(3)
    for values in (
        random.standard_normal(3000), random.exponential(size=3000), random.uniform(0, 1, 3000),
        random.standard_t(2, 3000), np.abs(random.standard_cauchy(3000)).clip(0, 1000),
    ):  # fmt: skip
        best = error(values, seen("mse", values))
        assert best <= error(values, seen("minmax", values)) * 1.05


@pytest.mark.parametrize("name", HISTOGRAMS)
def test_ranges_lie_inside_what_was_seen(name):
    values = np.random.default_rng(4).exponential(size=1000) + 0.5
    low, high = seen(name, values)
    assert values.min() * 0.2 <= low <= high <= values.max()


def test_unknown_observer():
    with pytest.raises(FewbitsError) as caught:
        make_observer("minmaks")
    assert caught.value.code == "unknown-observer" and "'minmax'" in (caught.value.hint or "")
