"""The float functions of generated code against numpy in double precision, over all magnitudes."""

import ctypes
from pathlib import Path

import numpy as np
import pytest
from fewbits.targets.mcu import toolchain
from fewbits.targets.mcu.target import get_target
from scipy import special

KERNELS = Path(__file__).resolve().parents[4] / "targets" / "mcu" / "kernels"

UNARY = {
    # name: (reference in float64, largest error in ulp)
    "expf": (np.exp, 1),
    "exp2f": (np.exp2, 1),
    "exp10f": (lambda x: 10.0**x, 1),
    "logf": (np.log, 1),
    "log2f": (np.log2, 1),
    "log10f": (np.log10, 1),
    "log1pf": (np.log1p, 1),
    "tanhf": (np.tanh, 2),
    "sigmoidf": (special.expit, 3),
    "erff": (special.erf, 2),
    "sqrtf": (np.sqrt, 0.5),
    "rsqrtf": (lambda x: 1 / np.sqrt(x), 1.5),
    "sinf": (np.sin, 1),
    "cosf": (np.cos, 1),
    "tanf": (np.tan, 1),
    "asinf": (np.arcsin, 1),
    "acosf": (np.arccos, 1),
    "atanf": (np.arctan, 1),
    "sinhf": (np.sinh, 1),
    "coshf": (np.cosh, 1),
    "asinhf": (np.arcsinh, 1),
    "acoshf": (np.arccosh, 1),
    "atanhf": (np.arctanh, 1),
    "floorf": (np.floor, 0),
    "ceilf": (np.ceil, 0),
    "truncf": (np.trunc, 0),
    "nearbyintf": (np.rint, 0),
    "roundf": (lambda x: np.copysign(np.floor(np.abs(x) + 0.5), x), 0),
    "fabsf": (np.abs, 0),
}
BINARY = {"powf": (np.power, 1), "atan2f": (np.arctan2, 1), "fmodf": (np.fmod, 0)}
#: float64 functions: (reference, largest relative error).
WIDE = {"exp": (np.exp, 1e-15), "log": (np.log, 1e-15)}
WIDE_BINARY = {"pow": (np.power, 1e-12), "fmod": (np.fmod, 0)}
DOUBLE = {
    "sqrt": np.sqrt,
    "floor": np.floor,
    "ceil": np.ceil,
    "nearbyint": np.rint,
    "trunc": np.trunc,
}


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    folder = tmp_path_factory.mktemp("float_math")
    lines = ['#include "float_math.h"']
    for name in UNARY:
        lines.append(
            f"void v_{name}(const float *x, float *y, int n) "
            f"{{ for (int i = 0; i < n; i++) y[i] = fb_{name}(x[i]); }}"
        )
    for name in BINARY:
        lines.append(
            f"void v_{name}(const float *a, const float *b, float *y, int n) "
            f"{{ for (int i = 0; i < n; i++) y[i] = fb_{name}(a[i], b[i]); }}"
        )
    for name in [*DOUBLE, *WIDE]:
        lines.append(
            f"void d_{name}(const double *x, double *y, int n) "
            f"{{ for (int i = 0; i < n; i++) y[i] = fb_{name}(x[i]); }}"
        )
    for name in WIDE_BINARY:
        lines.append(
            f"void d_{name}(const double *a, const double *b, double *y, int n) "
            f"{{ for (int i = 0; i < n; i++) y[i] = fb_{name}(a[i], b[i]); }}"
        )
    for dtype in ("int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"):
        lines.append(
            f"void to_{dtype}(const float *x, {dtype}_t *y, int n) "
            f"{{ for (int i = 0; i < n; i++) y[i] = fb_float_to_{dtype}(x[i]); }}"
        )
    source, shared = folder / "m.c", folder / "m.so"
    source.write_text("\n".join(lines) + "\n")
    toolchain.build(
        [source],
        get_target("c"),
        shared,
        include=[KERNELS],
        shared=True,
        sanitize=("undefined",),
        optimize="-O0",
    )
    return ctypes.CDLL(str(shared))


def magnitudes(count, rng):
    """Floats of every exponent and sign, special values, and many near one and near zero."""
    bits = rng.integers(0, 2**32, count, dtype=np.uint32).view(np.float32)
    near = rng.normal(0, 4, count).astype(np.float32)
    tens = rng.uniform(-110, 110, count).astype(np.float32)
    unit = rng.uniform(-1.01, 1.01, count).astype(np.float32)
    one = (1 + rng.normal(0, 1e-4, count)).astype(np.float32)
    halves = (np.arange(-200, 200) / 2).astype(np.float32)
    limits = np.finfo(np.float32)
    special_values = np.array(
        [0.0, -0.0, np.inf, -np.inf, np.nan, limits.tiny, -limits.tiny, limits.max, -limits.max,
         limits.smallest_subnormal, 1, -1, 0.5, -0.5, 2**23, 2**23 + 1, 2**22 + 0.5, 65535.9, 65536,
         88.72283, 88.72284, 88.7229, -87.34, -103.97, -103.98, 0.625, 0.921875],
        np.float32,
    )  # fmt: skip
    return np.concatenate([bits, near, tens, unit, one, halves, special_values])


def call(function, *arrays, dtype=np.float32):
    result = np.empty(arrays[0].shape, dtype)
    pointers = [a.ctypes.data_as(ctypes.c_void_p) for a in (*arrays, result)]
    function(*pointers, ctypes.c_int(result.size))
    return result


def check(result, exact, allowed):
    """`result` is within `allowed` ulp of `exact`, and equal where exact is special."""
    with np.errstate(over="ignore", under="ignore"):
        rounded = exact.astype(np.float32)
    assert np.array_equal(np.isnan(result), np.isnan(rounded))
    finite = np.isfinite(rounded) & np.isfinite(result)
    # Where one rounds to infinity and the other does not, the largest float is one ulp away.
    edge = ~finite & ~np.isnan(rounded)
    largest = np.finfo(np.float32).max
    assert (
        np.clip(result[edge], -largest, largest) == np.clip(rounded[edge], -largest, largest)
    ).all()
    scale = np.abs(exact[finite])
    ulp = np.spacing(np.maximum(scale, np.finfo(np.float32).tiny).astype(np.float32))
    error = np.abs(result[finite].astype(np.float64) - exact[finite]) / ulp
    assert error.max() <= allowed, f"{error.max():.3f} ulp"
    zero = (rounded == 0) & (result == 0)
    assert np.array_equal(np.signbit(result[zero]), np.signbit(rounded[zero]))


@pytest.mark.parametrize("name", UNARY)
def test_functions_of_one_argument(library, name):
    reference, allowed = UNARY[name]
    x = magnitudes(100_000, np.random.default_rng(1))
    with np.errstate(all="ignore"):
        exact = reference(x.astype(np.float64))
    check(call(getattr(library, f"v_{name}"), x), exact, allowed)


@pytest.mark.parametrize("name", BINARY)
def test_functions_of_two_arguments(library, name):
    reference, allowed = BINARY[name]
    rng = np.random.default_rng(2)
    a, b = magnitudes(100_000, rng), rng.permutation(magnitudes(100_000, rng))
    whole = np.arange(-8, 9, dtype=np.float32)
    grid = np.array([0.0, -0.0, 1, -1, np.inf, -np.inf, np.nan, 0.5, -0.5, *whole], np.float32)
    a = np.concatenate([a, np.repeat(grid, grid.size)])
    b = np.concatenate([b, np.tile(grid, grid.size)])
    with np.errstate(all="ignore"):
        exact = reference(a.astype(np.float64), b.astype(np.float64))
    check(call(getattr(library, f"v_{name}"), a, b), exact, allowed)


@pytest.mark.parametrize("name", DOUBLE)
def test_double_functions_are_exact(library, name):
    rng = np.random.default_rng(3)
    bits = rng.integers(0, 2**64, 20_000, dtype=np.uint64).view(np.float64)
    x = np.concatenate([bits, magnitudes(20_000, rng).astype(np.float64)])
    with np.errstate(all="ignore"):
        expected = DOUBLE[name](x)
    got = call(getattr(library, f"d_{name}"), x, dtype=np.float64)
    np.testing.assert_array_equal(got, expected)
    zero = expected == 0
    assert np.array_equal(np.signbit(got[zero]), np.signbit(expected[zero]))


def wide_magnitudes(count, rng):
    bits = rng.integers(0, 2**64, count, dtype=np.uint64).view(np.float64)
    with np.errstate(invalid="ignore"):
        return np.concatenate([bits, magnitudes(count, rng).astype(np.float64)])


@pytest.mark.parametrize("name", [*WIDE, *WIDE_BINARY])
def test_double_functions(library, name):
    rng = np.random.default_rng(6)
    x = wide_magnitudes(20_000, rng)
    arguments = [x] if name in WIDE else [x, rng.permutation(x)]
    reference, allowed = WIDE[name] if name in WIDE else WIDE_BINARY[name]
    with np.errstate(all="ignore"):
        expected = reference(*arguments)
    got = call(getattr(library, f"d_{name}"), *arguments, dtype=np.float64)
    assert np.array_equal(np.isnan(got), np.isnan(expected))
    tiny = np.finfo(np.float64).smallest_subnormal
    np.testing.assert_allclose(got, expected, rtol=allowed, atol=2 * tiny if allowed else 0)


@pytest.mark.parametrize(
    "dtype", ["int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"]
)
def test_conversion_saturates(library, dtype):
    limits = np.iinfo(dtype)
    edges = np.float32([limits.min, limits.max, limits.min - 1.5, limits.max + 1.5, 0.9, -0.9])
    x = np.concatenate([magnitudes(1000, np.random.default_rng(4)), edges])
    got = call(getattr(library, f"to_{dtype}"), x, dtype=np.dtype(dtype))
    expected = [
        0 if np.isnan(v) else (limits.max if v > 0 else limits.min) if np.isinf(v)
        else min(max(int(v), int(limits.min)), int(limits.max))
        for v in x
    ]  # fmt: skip
    assert [int(g) for g in got] == [int(e) for e in expected]
