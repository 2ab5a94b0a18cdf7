"""The table of spec 0.7: signal to quantization noise of every format, in dB.

The published figures are of 2^20 samples; a quarter of the same samples moves them by less than
the tolerance. Columns: N(0,1) in blocks of 64, 256, 2048, then Student's t(5) in the same.
"""

import numpy as np
import pytest
from fewbits.formats.compress import compress
from fewbits.formats.granularity import PerBlock
from fewbits.formats.parse import parse_format
from fewbits.formats.scales import searched_scales

COUNT = 1 << 18
ABSMAX = {
    "int3-narrow": (11.99, 10.61, 9.13, 9.61, 7.06, 4.00),
    "int4-narrow": (19.36, 17.96, 16.48, 16.71, 13.91, 10.03),
    "int4": (20.06, 19.01, 17.63, 17.44, 14.94, 11.11),
    "fp4_e2m1": (19.52, 19.07, 18.65, 18.99, 17.30, 14.21),
    "fp4-bnb": (18.28, 17.41, 16.38, 16.25, 13.61, 9.68),
    "nf4": (20.73, 20.11, 19.41, 19.61, 17.51, 14.04),
    "af4": (20.39, 19.76, 19.07, 19.51, 17.67, 14.86),
    "flint4": (15.92, 16.11, 16.88, 16.97, 16.80, 15.68),
    "pot4": (14.51, 14.21, 14.18, 15.06, 14.56, 14.27),
    "dynamic4": (17.11, 16.11, 15.09, 16.10, 14.60, 12.95),
    "int8-narrow": (44.52, 43.14, 41.66, 41.85, 39.02, 34.99),
    "dynamic8": (40.43, 39.31, 38.09, 38.90, 36.99, 34.83),
    "fp8_e4m3fn": (32.03, 31.67, 31.55, 32.53, 31.97, 31.67),
    "fp8_e5m2": (26.01, 25.68, 25.58, 26.52, 25.97, 25.68),
    "fp8_e3m4": (38.18, 37.76, 37.57, 38.63, 38.03, 37.68),
}
# Vectors of 4096 values, one scale each, searched by squared error; and how far the mean of few
# vectors may lie.
SEARCHED = {
    "normal": ((18.96, 19.07, 20.13, 18.02, 14.33), 0.15),
    "t5": ((14.44, 16.39, 16.56, 16.49, 14.37), 0.3),
    "uniform": ((23.53, 20.07, 21.36, 16.33, 15.98), 0.06),
    "laplace": ((15.60, 17.38, 17.78, 16.76, 14.36), 0.3),
}
SEARCHED_FORMATS = ("int4-narrow", "fp4_e2m1", "nf4", "flint4", "pot4")


@pytest.fixture(scope="module")
def samples() -> list[np.ndarray]:
    normal = np.random.default_rng(0).standard_normal(1 << 20)[:COUNT]
    return [normal, np.random.default_rng(0).standard_t(5, 1 << 20)[:COUNT]]


def _sqnr(x: np.ndarray, decoded: np.ndarray) -> float:
    return float(10 * np.log10((x**2).sum() / ((decoded - x) ** 2).sum()))


@pytest.mark.parametrize("name", ABSMAX)
def test_absmax_per_block(name, samples):
    measured = [
        _sqnr(x, compress(x, parse_format(name), granularity=PerBlock(size)).decode())
        for x in samples
        for size in (64, 256, 2048)
    ]
    # Large blocks of a heavy-tailed distribution hang on few samples.
    for got, wanted, tolerance in zip(
        measured, ABSMAX[name], (0.04, 0.04, 0.06, 0.05, 0.05, 0.2), strict=True
    ):
        assert got == pytest.approx(wanted, abs=tolerance)


def _vectors(kind: str) -> np.ndarray:
    rng = np.random.default_rng(0)
    size = (64 if kind == "t5" else 16, 4096)
    return {
        "normal": lambda: rng.standard_normal(size),
        "t5": lambda: rng.standard_t(5, size),
        "uniform": lambda: rng.uniform(-1, 1, size),
        "laplace": lambda: rng.laplace(size=size),
    }[kind]()


@pytest.mark.parametrize("kind", SEARCHED)
def test_searched_scale(kind):
    vectors = _vectors(kind)
    figures, tolerance = SEARCHED[kind]
    power = (vectors**2).sum(axis=1)
    for name, wanted in zip(SEARCHED_FORMATS, figures, strict=True):
        _, noise = searched_scales(vectors, parse_format(name), step=0.03)
        measured = (10 * np.log10(power / noise)).mean()
        assert measured == pytest.approx(wanted, abs=tolerance), name


def test_the_searched_scale_is_never_worse_than_absmax(samples):
    x = samples[1][:8192]
    for name in ("int4", "nf4", "fp4_e2m1", "flint4", "dynamic4"):
        plain, searched = (
            compress(x, parse_format(name), granularity=PerBlock(128), method=m).decode()
            for m in ("absmax", "mse")
        )
        errors = [((d - x) ** 2).reshape(-1, 128).sum(axis=1) for d in (plain, searched)]
        assert (errors[1] <= errors[0] * 1.0001).all(), name
