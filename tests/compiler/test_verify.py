"""Codes of interfaces, and the distance from the float model layer by layer."""

from __future__ import annotations

import numpy as np
import pytest
from fewbits.compiler.artifact import Port
from fewbits.compiler.evaluation import accuracy
from fewbits.compiler.verify import _noise, _power, same
from hypothesis import given, settings
from hypothesis import strategies as st

PORT = Port("x", (1, 3), "int8", 0.5, 10, "float32")


def test_codes_and_back():
    real = np.array([[0.0, 0.25, 0.75, -100.0, 100.0]], "float32")
    codes = PORT.to_codes(real)
    assert codes.dtype == np.int8 and codes.tolist() == [[10, 10, 12, -128, 127]]
    assert PORT.to_real(codes).tolist() == [[0.0, 0.0, 1.0, -69.0, 58.5]]
    assert Port.from_dict({**PORT.__dict__, "shape": [1, 3]}) == PORT


@settings(deadline=None, derandomize=True)
@given(st.integers(-128, 127), st.floats(2**-20, 2**20, width=32), st.integers(-128, 127))
def test_every_code_survives(code, scale, zero_point):
    port = Port("x", (1,), "int8", scale, zero_point, "float32")
    assert port.to_codes(port.to_real(np.array([code], "int8")))[0] == code


def test_values_that_are_their_own_codes():
    port = Port("i", (2,), "int64", None, 0, "int64")
    array = np.array([2**40, -1])
    assert port.to_codes(array).tolist() == port.to_real(array).tolist() == array.tolist()


@pytest.mark.parametrize("order", [(0, 1, 2, 3, 4), (0, 1, 3, 4, 2), (0, 1, 4, 3, 2)])
def test_noise_finds_the_order_of_axes(order):
    want = np.random.default_rng(0).standard_normal((4, 1, 3, 3, 3))
    got = want.transpose(np.argsort(order)) + 0.001
    assert _noise(got, want) == pytest.approx(want.size * 1e-6, rel=1e-3)
    assert _noise(got + 1, want) > 50


def test_noise_of_flattened_images():
    want = np.random.default_rng(0).standard_normal((4, 1, 5, 3, 2))
    got = want.transpose(0, 1, 3, 4, 2)
    assert _noise(got, want.reshape(4, 1, 30)) == 0


def test_masked_values_do_not_count():
    want = np.array([[[1.0, -np.inf]]])
    assert _power(want) == 1 and _noise(np.array([[[1.5, -60.0]]]), want) == 0.25


def test_labels_that_are_no_classes():
    outputs = np.array([[0.1, 0.9], [0.8, 0.2]])
    assert accuracy(outputs, np.array([1, 1])) == 0.5
    assert accuracy(outputs, np.array([1.0, 1.0])) is None
    assert accuracy(outputs, np.array([[1], [1]])) is None


def test_same():
    codes = np.array([1, 2], "int8")
    assert same(codes, codes) and not same(codes, codes + np.int8(1))
    assert same(np.float32([1, np.nan]), np.float32([1.00001, np.nan]))
    assert not same(np.float32([1.0]), np.float32([1.01]))
