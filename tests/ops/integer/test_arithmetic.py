"""Requantization against Python's own integers, which neither round nor overflow."""

from __future__ import annotations

from fractions import Fraction
from math import floor

import numpy as np
import pytest
import torch
from fewbits.errors import FewbitsError
from fewbits.ops.integer.arithmetic import (
    possible_requantization,
    requantization,
    requantization_shift,
    requantize,
)
from hypothesis import given, settings
from hypothesis import strategies as st

INT32 = st.integers(-(2**31), 2**31 - 1)


def plain(acc: int, bias: int, multiplier: int, shift: int, low: int, high: int) -> int:
    """The definition in docs/architecture.md, word for word."""
    return min(max((((acc << shift) + bias) * multiplier) >> 32, low), high)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(
    st.integers(-(2**23), 2**23), INT32, st.integers(0, 2**31 - 1), st.integers(0, 8),
    st.integers(-128, 127), st.integers(-128, 127),
)  # fmt: skip
def test_requantize_is_its_definition(acc, bias, multiplier, shift, low, high):
    low, high = min(low, high), max(low, high)
    got = requantize(torch.tensor([acc]), bias, multiplier, shift, low, high)
    assert got.dtype == torch.int8
    assert got.item() == plain(acc, bias, multiplier, shift, low, high)


def test_floor_goes_down_for_negative_numbers():
    got = requantize(torch.tensor([-1, 0, 1]), 0, 2**31 - 1, 0, -128, 127)
    assert got.tolist() == [-1, 0, 0]


@settings(max_examples=300, deadline=None, derandomize=True)
@given(
    st.floats(2.0**-20, 4.0), st.floats(-1000, 1000), st.integers(-128, 127),
    st.lists(st.integers(-20_000, 20_000), min_size=1, max_size=20),
)  # fmt: skip
def test_integers_stand_for_the_real_scale(factor, offset, zero_point, accumulators):
    """Within 1/100 LSB of round(factor * (acc + offset)) + zero_point, half upwards."""
    found = requantization(
        np.array([factor]), np.array([offset]), zero_point, np.array([20_000 + 1000])
    )
    multiplier, bias = int(found.multiplier[0]), int(found.bias[0])
    assert 0 < multiplier < 2**31 and -(2**31) <= bias < 2**31
    for acc in accumulators:
        got = plain(acc, bias, multiplier, found.shift, -(2**40), 2**40)
        exact = Fraction(factor) * (acc + Fraction(offset)) + zero_point + Fraction(1, 2)
        reach = abs(factor * 21_000) * 2.0**-20 + 0.02
        assert floor(exact - Fraction(reach)) <= got <= floor(exact + Fraction(reach))


@pytest.mark.parametrize(("factor", "shift"), [(1 / 64, 0), (1 / 63, 1), (0.5, 5), (1.0, 6)])
def test_shift(factor, shift):
    assert requantization_shift(np.array([1e-6, factor])) == shift


def test_one_shift_serves_all_channels():
    found = requantization(np.array([1e-4, 1.0]), np.zeros(2), 0, np.array([1000, 1000]))
    assert found.shift == 6
    for channel, factor in enumerate((1e-4, 1.0)):
        got = plain(
            900, int(found.bias[channel]), int(found.multiplier[channel]), 6, -(2**40), 2**40
        )
        assert got == round(900 * factor)


@pytest.mark.parametrize(
    ("factor", "offset", "bound", "code"),
    [
        (1e-12, 0.0, 10, "scale-too-small"),
        (0.01, 0.0, 2**31, "accumulator-overflow"),
        (0.01, 3e9, 10, "accumulator-overflow"),
        (1.0, 0.0, 2**26, "accumulator-overflow"),  # once shifted left by 6
        (2.0**-30, 0.0, 10, "accumulator-overflow"),  # the rounding half alone
    ],
)
def test_what_int32_cannot_hold(factor, offset, bound, code):
    arguments = np.array([factor]), np.array([offset]), 10, np.array([bound])
    with pytest.raises(FewbitsError) as error:
        requantization(*arguments, "layer")
    assert (error.value.code, error.value.where) == (code, "layer")
    assert error.value.hint
    assert possible_requantization(*arguments) is None
