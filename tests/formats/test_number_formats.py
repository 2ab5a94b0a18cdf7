"""What every number format promises, whatever its family."""

import dataclasses

import numpy as np
import pytest
from fewbits.errors import FewbitsError
from fewbits.formats.affine import AffineFormat, cover
from fewbits.formats.base import NumberFormat
from fewbits.formats.codebook import Codebook
from fewbits.formats.floating import Float
from fewbits.formats.integer import Integer
from fewbits.formats.parse import FAMILIES, parse_format
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

NAMES = [
    *(f"{kind}{b}{narrow}" for b in range(2, 9) for kind, narrow in
      (("int", ""), ("uint", ""), ("int", "-narrow"))),
    "fp8_e4m3fn", "fp8_e5m2", "fp8_e4m3", "fp8_e3m4", "fp8_e4m3fnuz", "fp8_e5m2fnuz",
    "fp8_e4m3b11fnuz", "fp8_e5m2-finite", "fp8_e2m5", "fp8_e1m6", "ufp8_e4m4", "fp8_e2m5b1.25",
    "fp6_e3m2", "fp6_e2m3", "fp5_e2m2", "fp4_e2m1", "fp4_e3m0", "fp3_e1m1", "fp8_e4m3fn-overflow",
    "nf4", "af4", "fp4-bnb", "quantile3", "quantile8", "codebook[-1,0,0.25,0.75]",
    *(f"{u}dynamic{b}" for u in ("", "u") for b in range(4, 9)), "dynamic8_e5",
    *(f"{u}flint{b}" for u in ("", "u") for b in range(3, 9)),
    *(f"pot{b}" for b in range(3, 7)), *(f"upot{b}" for b in range(2, 6)),
    "log8x16", "log4x2", "log3x1", *(f"bcq{b}" for b in range(1, 9)),
]  # fmt: skip
FORMATS = st.sampled_from(NAMES).map(parse_format)
REALS = hnp.arrays(np.float64, st.integers(1, 40), elements=st.floats(-2, 2))


@pytest.mark.parametrize("name", NAMES)
def test_the_name_reads_back(name):
    number_format = parse_format(name)
    assert number_format.name == name
    assert parse_format(number_format.name) == number_format
    assert hash(parse_format(name)) == hash(number_format)


def test_every_family_is_sampled():
    assert {type(parse_format(n)) for n in NAMES} == set(FAMILIES)


@pytest.mark.parametrize("name", NAMES)
def test_table_and_levels_agree(name):
    number_format = parse_format(name)
    values, levels = number_format.values(), number_format.levels()
    assert values.shape == (2**number_format.bits,)
    assert (np.diff(levels) > 0).all()
    assert set(levels) <= set(values + 0.0)
    assert (levels.min() < 0) == number_format.signed
    assert number_format.reach == np.abs(levels).max()
    assert np.array_equal(number_format.round(levels), levels.astype(np.float32))
    codes = np.arange(2**number_format.bits)
    assert np.array_equal(number_format.decode(codes), values.astype(np.float32), equal_nan=True)


@settings(max_examples=150, deadline=None)
@given(FORMATS, REALS)
def test_encode_is_nearest_monotone_and_idempotent(number_format: NumberFormat, unit):
    if number_format.name.endswith("-overflow"):  # beyond its reach it has NaN or infinity
        unit = np.clip(unit, -1, 1)
    x = np.sort(unit) * number_format.reach
    codes = number_format.encode(x)
    assert codes.dtype == np.uint8
    assert codes.shape == x.shape
    chosen = number_format.values()[codes]
    best = np.abs(x[:, None] - number_format.levels()).min(axis=1)
    assert np.allclose(np.abs(x - chosen), best, rtol=1e-12, atol=0)
    assert (np.diff(chosen) >= 0).all()
    assert np.array_equal(number_format.encode(chosen), codes)


@pytest.mark.parametrize("name", NAMES)
def test_ties_go_to_the_even_code(name):
    number_format = parse_format(name)
    levels = number_format.levels()
    codes = number_format.encode(levels).astype(int)
    middles = levels[:-1] + np.diff(levels) / 2
    exact = (middles - levels[:-1]) == (levels[1:] - middles)
    low, high = codes[:-1] % 2 == 0, codes[1:] % 2 == 0
    decisive = exact & (low != high)
    chosen = number_format.encode(middles)
    wanted = np.where(low, codes[:-1], codes[1:])
    values = number_format.values()
    assert np.array_equal(values[chosen[decisive]], values[wanted[decisive]])


@pytest.mark.parametrize("name", [n for n in NAMES if "-overflow" not in n])
def test_infinity_saturates(name):
    number_format = parse_format(name)
    ends = number_format.round(np.array([-np.inf, np.inf]))
    assert np.array_equal(ends, number_format.levels()[[0, -1]].astype(np.float32))


@pytest.mark.parametrize("name", ["int4", "uint8", "nf4", "fp4_e2m1", "dynamic8", "flint4", "bcq2"])
def test_nan_is_refused_by_formats_without_one(name):
    with pytest.raises(FewbitsError, match="NaN"):
        parse_format(name).encode([0.0, np.nan])


def test_a_code_with_too_many_bits_is_refused():
    with pytest.raises(FewbitsError, match="more than 4 bits"):
        parse_format("nf4").decode(np.array([16], np.uint8))


@pytest.mark.parametrize(
    "text",
    ["int1", "int9", "int99", "uint4-narrow", "fp8_e4m4", "fp9_e4m4", "fp8_e0m7", "fp4_e2m1fnuzz",
     "dynamic3", "dynamic8_e9", "udynamic8_e5", "flint2", "flint64", "pot7", "upot6", "bcq0",
     "bcq9", "quantile9", "codebook[]", "codebook[0,0]", "codebook[1,2,3]", "codebook[1,nan]",
     "codebook[a,b]", "fp8_e4m3b9999", "fp4_e2m1-overflow", "", "nf5", "int4 ", "x" * 100_000],
)  # fmt: skip
def test_impossible_names_are_refused(text):
    with pytest.raises(FewbitsError) as caught:
        parse_format(text)
    assert caught.value.code in ("unknown-format", "bad-format")
    assert len(str(caught.value)) < 1000


def test_a_misspelt_name_gets_a_hint():
    with pytest.raises(FewbitsError) as caught:
        parse_format("fp8_e4m3n")
    assert "did you mean 'fp8_e4m3" in str(caught.value.hint)


def test_big_arrays_keep_their_shape_across_pieces():
    x = np.linspace(-9, 9, 600_000).reshape(2, 3, -1)
    assert np.array_equal(Integer(4).integers(Integer(4).encode(x)), np.clip(np.rint(x), -8, 7))


@pytest.mark.parametrize("bits", [3, 5, 8])
def test_one_exponent_bit_is_the_uniform_grid(bits):
    number_format = Float(1, bits - 2)
    levels = number_format.levels()
    assert np.array_equal(levels / levels[-1] * (2 ** (bits - 1) - 1), Integer(bits, narrow=True)
                          .levels())  # fmt: skip


def test_quantiles_of_the_data_divide_it_evenly():
    x = np.random.default_rng(0).exponential(size=20_000)
    codebook = Codebook.from_quantiles(x, 3)
    assert codebook.reach == 1
    # Midpoints of quantile cells: every level gets about an eighth of the values.
    top = np.quantile(x, np.linspace(0, 1, 9))[-2:].mean()
    share = np.bincount(codebook.encode(x / top), minlength=8) / x.size
    assert np.abs(share[1:-2] - 1 / 8).max() < 0.05
    assert codebook.table_bits == 8 * 32
    assert parse_format(codebook.name) == codebook


@pytest.mark.parametrize("x", [[], [1.0, np.inf], [3.0, 3.0]])
def test_quantiles_of_nothing_are_refused(x):
    with pytest.raises(FewbitsError):
        Codebook.from_quantiles(x, 4)


@given(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6), st.sampled_from([4, 8, 16]))
def test_cover_is_the_rule_of_the_int8_road(a, b, bits):
    low, high = min(a, b), max(a, b)
    affine = AffineFormat(bits)
    one = affine.parameters(low, high)
    scale, zero = cover([low, low], [high, high], affine.minimum, affine.maximum)
    assert scale.tolist() == [one.scale] * 2
    assert zero.tolist() == [one.zero_point] * 2
    assert affine.minimum <= one.zero_point <= affine.maximum


def test_formats_are_values():
    assert parse_format("int8-narrow") == Integer(8, narrow=True)
    with pytest.raises(dataclasses.FrozenInstanceError):
        Integer(8).bits = 4  # type: ignore[misc]
