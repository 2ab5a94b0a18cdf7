"""Searched scales are as good as trying every multiple, and each row's own affair."""

from __future__ import annotations

import numpy as np
import pytest
from fewbits.formats.parse import parse_format
from fewbits.formats.scales import absmax_scales, search_multiples, searched_scales

RNG = np.random.default_rng(0)
ROWS = {
    "normal": RNG.standard_normal((256, 64)).astype(np.float32),
    "t3": RNG.standard_t(3, (64, 384)).astype(np.float32),
}
FORMATS = ("int3", "int4", "nf4", "fp4_e2m1", "flint4", "pot4", "int8")


def errors(rows: np.ndarray, name: str, multiple: float) -> np.ndarray:
    number_format = parse_format(name)
    scales = (absmax_scales(rows, number_format.reach) * multiple).astype(np.float32)[:, None]
    return ((number_format.round(rows / scales) * scales - rows) ** 2).sum(1, dtype=np.float64)


@pytest.mark.parametrize("kind", ROWS)
@pytest.mark.parametrize("name", FORMATS)
def test_the_search_finds_what_trying_all_multiples_finds(name: str, kind: str) -> None:
    rows = ROWS[kind]
    every = np.stack([errors(rows, name, 0.3 + 0.01 * k) for k in range(91)])
    scales, found = searched_scales(rows, parse_format(name))
    # Among 255 levels 64 values make for a noisy valley.
    assert found.sum() <= every.min(axis=0).sum() * (1.025 if name == "int8" else 1.005)
    assert (found <= every[70] * 1.0001).all()  # the absmax scale
    step = scales.astype(np.float32)[:, None]
    again = ((parse_format(name).round(rows / step) * step - rows) ** 2).sum(1)
    np.testing.assert_allclose(found, again, rtol=1e-5)


def test_rows_do_not_depend_on_their_neighbours() -> None:
    rows, number_format = ROWS["t3"], parse_format("nf4")
    together, _ = searched_scales(rows, number_format)
    alone = [searched_scales(rows[i : i + 1], number_format)[0][0] for i in range(len(rows))]
    assert np.array_equal(together, alone)


@pytest.mark.parametrize("count", (1, 2, 7, 91))
@pytest.mark.parametrize("low", (0.3, 0.95, 1.2))
def test_a_valley_is_found_wherever_it_is(count: int, low: float) -> None:
    multiples = low + 0.01 * np.arange(count)
    best, least = search_multiples(multiples, count, lambda m: (m - multiples) ** 2)
    assert np.array_equal(best, multiples)
    assert np.array_equal(least, np.zeros(count))
