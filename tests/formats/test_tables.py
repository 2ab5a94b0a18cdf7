"""Value tables of spec 3, 5 and 8, as published."""

import numpy as np
import pytest
from fewbits.formats.binary import BinaryCoding, fit_binary, integer_to_binary
from fewbits.formats.codebook import normal_float_levels
from fewbits.formats.dynamic import DynamicTree
from fewbits.formats.flint import Flint
from fewbits.formats.integer import Integer
from fewbits.formats.parse import parse_format

NF4 = (
    -1, -0.6961928, -0.52507305, -0.39491749, -0.28444138, -0.18477343, -0.09105004, 0,
    0.0795803, 0.1609302, 0.2461123, 0.33791524, 0.44070983, 0.5626170, 0.72295684, 1,
)  # fmt: skip


def test_nf4_table_and_construction():
    assert np.allclose(parse_format("nf4").values(), NF4, atol=5e-8)
    assert np.allclose(normal_float_levels(), NF4, atol=3e-7)


def test_fp4_of_bitsandbytes_by_code():
    magnitudes = np.array([0, 0.0625, 8, 12, 4, 6, 2, 3]) / 12
    values = parse_format("fp4-bnb").values()
    assert np.array_equal(values, np.concatenate([magnitudes, -magnitudes]))


def test_ocp_e2m1():
    assert parse_format("fp4_e2m1").values()[:8].tolist() == [0, 0.5, 1, 1.5, 2, 3, 4, 6]


def test_dynamic_tree_of_8_bits():
    levels = DynamicTree(8).levels()
    assert len(levels) == 256
    assert np.allclose(levels[levels > 0][:3], [5.5e-7, 3.25e-6, 7.75e-6], rtol=1e-12)
    assert np.allclose(levels[-3:], [0.97890625, 0.99296875, 1], rtol=1e-12)
    assert levels[0] == pytest.approx(-0.99296875)
    unsigned = DynamicTree(8, signed=False).levels()
    assert len(unsigned) == 256
    assert np.allclose(unsigned[[0, 1, -2, -1]], [0, 3.25e-7, 0.99648437, 1], rtol=1e-8)


def test_dynamic_tree_of_4_bits():
    positive = np.array([0.0055, 0.0325, 0.0775, 0.2125, 0.4375, 0.6625, 0.8875])
    wanted = np.concatenate([-positive[::-1], [0], positive, [1]])
    assert np.allclose(DynamicTree(4).levels(), wanted, rtol=1e-12)


@pytest.mark.parametrize("bits", range(4, 9))
@pytest.mark.parametrize("signed", [True, False])
def test_dynamic_trees_use_every_code(bits, signed):
    assert len(DynamicTree(bits, signed).levels()) == 2**bits


def test_flint_and_power_of_two_sets():
    unsigned = [0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 24, 32, 64]
    assert Flint(4, signed=False).levels().tolist() == unsigned
    magnitudes = [0, 1, 2, 3, 4, 6, 8, 16]
    assert Flint(4).levels()[7:].tolist() == magnitudes
    assert Flint(4).levels()[:8].tolist() == [-m for m in reversed(magnitudes)]
    assert parse_format("pot4").levels()[7:].tolist() == [0, 1, 2, 4, 8, 16, 32, 64]


def test_logarithmic_levels_have_equal_ratios():
    levels = parse_format("log8x16").levels()
    positive = levels[levels > 0]
    assert len(positive) == 127
    assert positive[-1] == 1
    np.testing.assert_allclose(positive[1:] / positive[:-1], 2 ** (1 / 16))


def test_flint_code_layout():
    by_code = Flint(4, signed=False).values().tolist()
    assert by_code[:8] == list(range(8))
    assert [by_code[c] for c in (0b1100, 0b1101, 0b1110, 0b1111)] == [8, 10, 12, 14]
    assert [by_code[c] for c in (0b1010, 0b1011, 0b1001, 0b1000)] == [16, 24, 32, 64]
    signed = Flint(4).values().tolist()
    assert [signed[c] for c in range(8)] == [0, 1, 2, 3, 16, 8, 4, 6]


@pytest.mark.parametrize("bits", range(3, 9))
def test_flint_is_an_integer_shifted(bits):
    number_format = Flint(bits, signed=bits % 2 == 0)
    base, shift = number_format.base_and_shift()
    assert np.array_equal(base.astype(np.int64) << shift, number_format.values().astype(np.int64))
    assert np.abs(base).max() < 2**number_format.bits


@pytest.mark.parametrize(("bits", "least"), [(2, 9.4), (3, 14.6), (4, 19.6)])
def test_binary_coding_alternating_beats_greedy(bits, least):
    w = np.random.default_rng(0).standard_normal((100, 64))
    noise = []
    for rounds in (0, 1, 15):
        scales, codes = fit_binary(w, bits, rounds=rounds)
        assert (np.diff(scales, axis=1) <= 0).all()
        assert scales.min() >= 0
        sums = BinaryCoding(bits).sums(scales)
        decoded = np.take_along_axis(sums, codes.astype(int), axis=1)
        # Every code is the nearest of its row's sums.
        assert np.allclose(
            np.abs(decoded - w), np.abs(sums[:, None] - w[:, :, None]).min(-1), atol=1e-12
        )
        noise.append(((decoded - w) ** 2).sum(axis=1))
    assert (noise[1] <= noise[0] + 1e-12).all()
    assert (noise[2] <= noise[1] + 1e-12).all()
    assert 10 * np.log10((w**2).sum() / noise[2].sum()) > least


def test_binary_coding_is_exact_where_it_can_be():
    rng = np.random.default_rng(0)
    scales = np.array([4.0, 1.0])
    codes = rng.integers(0, 4, (5, 40))
    w = BinaryCoding(2).sums(scales)[codes]
    found, planes = fit_binary(w, 2)
    assert np.allclose(found, scales)
    decoded = np.take_along_axis(BinaryCoding(2).sums(found), planes.astype(int), axis=1)
    assert np.allclose(decoded, w)


def test_importance_moves_the_fit():
    w = np.concatenate([np.full(32, 1.0), np.full(32, 3.0)])[None]
    heavy, _ = fit_binary(w, 1)
    light, _ = fit_binary(w, 1, importance=(w == 1))
    assert heavy[0, 0] == pytest.approx(2.0)
    assert light[0, 0] == pytest.approx(1.0)


def test_rows_of_zeros_and_equal_values_fit():
    w = np.zeros((3, 16))
    w[1], w[2] = 0.5, 1e-30
    scales, codes = fit_binary(w, 3)
    decoded = np.take_along_axis(BinaryCoding(3).sums(scales), codes.astype(int), axis=1)
    assert np.allclose(decoded, w, rtol=1e-9, atol=0)


@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("bits", range(2, 9))
def test_uniform_integers_are_binary_coding_exactly(bits, signed):
    integer = Integer(bits, signed)
    codes = np.arange(2**bits, dtype=np.uint8)
    scale, zero = np.float32([0.37, 1e-3]), np.array([integer.minimum, integer.maximum])
    scales, offsets, planes = integer_to_binary(codes, scale, zero, integer)
    sums = BinaryCoding(bits).sums(scales)[:, planes] + offsets[:, None]
    wanted = scale[:, None].astype(float) * (integer.values()[None] - zero[:, None])
    assert np.array_equal(sums.astype(np.float32), wanted.astype(np.float32))
    assert np.allclose(sums, wanted, rtol=1e-14, atol=1e-17)
