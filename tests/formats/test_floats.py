"""Floats against ml_dtypes on every code and on reals of every size, and spec 9's study."""

import ml_dtypes
import numpy as np
import pytest
from fewbits.errors import FewbitsError
from fewbits.formats.floating import Float
from fewbits.formats.parse import parse_format

PEERS = {
    "fp8_e4m3fn": ml_dtypes.float8_e4m3fn,
    "fp8_e5m2": ml_dtypes.float8_e5m2,
    "fp8_e4m3": ml_dtypes.float8_e4m3,
    "fp8_e3m4": ml_dtypes.float8_e3m4,
    "fp8_e4m3fnuz": ml_dtypes.float8_e4m3fnuz,
    "fp8_e5m2fnuz": ml_dtypes.float8_e5m2fnuz,
    "fp8_e4m3b11fnuz": ml_dtypes.float8_e4m3b11fnuz,
    "fp6_e3m2": ml_dtypes.float6_e3m2fn,
    "fp6_e2m3": ml_dtypes.float6_e2m3fn,
    "fp4_e2m1": ml_dtypes.float4_e2m1fn,
}


def _reals(number_format: Float) -> np.ndarray:
    rng = np.random.default_rng(1)
    random = rng.standard_normal(40_000) * np.exp2(rng.uniform(-20, 20, 40_000))
    levels = number_format.levels()
    middles = (levels[1:] + levels[:-1]) / 2
    ends = [0.0, -0.0, np.inf, -np.inf, 1e-30, -1e-30]
    return np.concatenate([random, levels, middles, np.nextafter(middles, 9), ends]).astype("f4")


@pytest.mark.parametrize("name", PEERS)
def test_every_code_means_the_same_as_in_ml_dtypes(name):
    number_format = parse_format(name)
    codes = np.arange(2**number_format.bits).astype(np.uint8)
    ours, theirs = number_format.values(), codes.view(PEERS[name]).astype(np.float64)
    assert np.array_equal(ours, theirs, equal_nan=True)
    real = ~np.isnan(ours)
    assert np.array_equal(np.signbit(ours[real]), np.signbit(theirs[real]))


@pytest.mark.parametrize("name", PEERS)
def test_codes_equal_the_cast_of_ml_dtypes(name):
    number_format = parse_format(name)
    assert isinstance(number_format, Float)
    if number_format.has_nan:  # its casts overflow
        number_format = parse_format(f"{name}-overflow")
    x = _reals(parse_format(name))
    ours, theirs = number_format.encode(x), x.astype(PEERS[name]).view(np.uint8)
    nan = np.isnan(number_format.values())
    assert np.array_equal(nan[ours], nan[theirs])
    assert np.array_equal(ours[~nan[ours]], theirs[~nan[ours]])


@pytest.mark.parametrize("name", PEERS)
def test_saturating_is_the_cast_of_the_clipped(name):
    number_format = parse_format(name)
    x, reach = _reals(number_format), number_format.reach
    theirs = np.clip(x, -reach, reach).astype(PEERS[name]).view(np.uint8)
    assert np.array_equal(number_format.encode(x), theirs)


@pytest.mark.parametrize(
    ("name", "largest", "code", "normal", "subnormal", "finite", "nans", "infinities"),
    [
        ("fp8_e4m3fn", 448, 0x7E, 2.0**-6, 2.0**-9, 254, 2, 0),
        ("fp8_e5m2", 57344, 0x7B, 2.0**-14, 2.0**-16, 248, 6, 2),
        ("fp8_e4m3fnuz", 240, 0x7F, 2.0**-7, 2.0**-10, 255, 1, 0),
        ("fp8_e5m2fnuz", 57344, 0x7F, 2.0**-15, 2.0**-17, 255, 1, 0),
        ("fp8_e4m3", 240, 0x77, 2.0**-6, 2.0**-9, 240, 14, 2),
        ("fp8_e3m4", 15.5, 0x6F, 2.0**-2, 2.0**-6, 224, 30, 2),
        ("fp6_e2m3", 7.5, 0x1F, 1, 0.125, 64, 0, 0),
        ("fp6_e3m2", 28, 0x1F, 0.25, 0.0625, 64, 0, 0),
        ("fp4_e2m1", 6, 0x7, 1, 0.5, 16, 0, 0),
    ],
)
def test_value_table(name, largest, code, normal, subnormal, finite, nans, infinities):
    number_format = parse_format(name)
    values = number_format.values()
    assert number_format.reach == largest
    assert number_format.encode(largest) == code
    assert values[1] == subnormal
    assert values[2**number_format.mantissa_bits] == normal
    assert np.isfinite(values).sum() == finite
    assert np.isnan(values).sum() == nans
    assert np.isinf(values).sum() == infinities
    distinct = finite - (0 if name.endswith("fnuz") else 1)
    assert len(number_format.levels()) == distinct


def test_specials_of_fp8():
    e4m3, e5m2 = parse_format("fp8_e4m3fn-overflow"), parse_format("fp8_e5m2-overflow")
    assert e4m3.encode([449, 464, 465, np.inf, np.nan]).tolist() == [0x7E, 0x7E, 0x7F, 0x7F, 0x7F]
    assert e4m3.encode([-465]).tolist() == [0xFF]
    assert e5m2.encode([61439, 61440, -np.inf]).tolist() == [0x7B, 0x7C, 0xFC]
    assert np.isnan(e5m2.round(np.nan))
    assert np.isnan(parse_format("fp8_e4m3fn").round(np.nan))
    assert parse_format("fp8_e4m3fnuz").encode([-0.0, -1e-9, np.nan]).tolist() == [0, 0, 0x80]


@pytest.mark.parametrize("mantissa_bits", range(7))
@pytest.mark.parametrize("signed", [True, False])
def test_a_real_bias_covers_the_range_asked_for(mantissa_bits, signed):
    number_format = Float.covering(2.7, 8, mantissa_bits, signed=signed)
    assert number_format.reach == pytest.approx(2.7, rel=1e-12)
    assert number_format.bits == 8
    assert len(number_format.levels()) == (255 if signed else 256)
    assert parse_format(number_format.name) == number_format


def test_a_real_bias_is_a_scale():
    x = np.random.default_rng(0).standard_normal(1000)
    usual, covering = Float(3, 4, specials="finite"), Float.covering(2.7, 8, 4)
    scaled = usual.values()[usual.encode(x * usual.reach / 2.7)] * 2.7 / usual.reach
    assert np.allclose(covering.values()[covering.encode(x)], scaled, rtol=1e-12)


def test_the_unsigned_float_clips_negatives():
    assert parse_format("ufp8_e4m4").encode([-1.0, -0.0]).tolist() == [0, 0]


@pytest.mark.parametrize("maximum", [0.0, -1.0, np.inf, np.nan])
def test_a_range_that_is_none_is_refused(maximum):
    with pytest.raises(FewbitsError):
        Float.covering(maximum, 8, 3)


def _density(kind: str) -> tuple[np.ndarray, np.ndarray]:
    """Points, dense near 0, and their probabilities: the study is of expected values."""
    top = {"uniform": 1, "normal": 10, "t8": 100}[kind]
    u = (np.arange(1 << 15) + 0.5) / (1 << 15)
    x = top * u**2
    density = {
        "uniform": lambda: np.ones_like(x),
        "normal": lambda: np.exp(-(x**2) / 2),
        "t8": lambda: (1 + x**2 / 8) ** -4.5,
    }[kind]()
    return x, density * u


@pytest.mark.parametrize(
    ("kind", "ranges", "wanted"),
    [
        ("uniform", np.linspace(0.9, 1.1, 9), (26.3, 32.4, 38.5, 44.5, 48.1)),
        ("normal", np.linspace(3, 8, 21), (25.6, 31.6, 37.6, 42.7, 40.5)),
        ("t8", np.geomspace(4, 100, 40), (25.6, 31.5, 37.5, 38.4, 34.4)),
    ],
)
def test_expected_sqnr_at_the_best_range(kind, ranges, wanted):
    x, weight = _density(kind)
    for mantissa_bits, target in zip((2, 3, 4, 5, 6), wanted, strict=True):
        noise = min(
            (weight * (Float.covering(c, 8, mantissa_bits).round(x) - x) ** 2).sum() for c in ranges
        )
        sqnr = 10 * np.log10((weight * x**2).sum() / noise)
        assert sqnr == pytest.approx(target, abs=0.2), f"M={mantissa_bits}"
