"""Scales, zero points and codes of uniform affine integers."""

from __future__ import annotations

import numpy as np
import pytest
from fewbits.formats.affine import AffineFormat
from hypothesis import given, settings
from hypothesis import strategies as st

REALS = st.floats(-1e6, 1e6, width=32)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(REALS, REALS, st.booleans(), st.booleans(), st.integers(2, 8))
def test_zero_is_exact_and_the_range_is_covered(a, b, symmetric, narrow, bits):
    low, high = min(a, b), max(a, b)
    grid = AffineFormat(bits, symmetric, narrow)
    chosen = grid.parameters(low, high)
    assert chosen.scale > 0 and grid.minimum <= chosen.zero_point <= grid.maximum
    codes = grid.encode(np.array([0.0, low, high]), np.float32(chosen.scale), chosen.zero_point)
    assert codes[0] == chosen.zero_point
    back = (codes.astype(np.float64) - chosen.zero_point) * chosen.scale
    if max(abs(low), abs(high)) > 1e-30:
        assert np.abs(back - [0, low, high]).max() <= chosen.scale * 1.001


def test_known_values():
    chosen = AffineFormat().parameters(0.0, 255.0)
    assert (chosen.scale, chosen.zero_point) == (1.0, -128)
    chosen = AffineFormat().parameters(-128.0, 127.0)
    assert (chosen.scale, chosen.zero_point) == (1.0, 0)
    chosen = AffineFormat(symmetric=True).parameters(-2.0, 127.0)
    assert (chosen.scale, chosen.zero_point) == (1.0, 0)


@pytest.mark.parametrize("value", [0.0, 1e-45])
def test_no_width_gets_scale_one(value):
    assert AffineFormat().parameters(value, value).scale == 1.0


def test_ties_round_to_even_and_everything_saturates():
    codes = AffineFormat().encode(np.array([0.5, 1.5, -0.5, 1e9, -1e9]), np.float32(1), 0)
    assert codes.tolist() == [0, 2, 0, 127, -128]
    assert AffineFormat(narrow=True).encode(np.array([-1e9]), np.float32(1), 0)[0] == -127
