"""The results of kernels without tensor cores, on a GPU or an emulated one."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from fewbits.schedules.cuda.architecture import ARCHITECTURES
from fewbits.schedules.cuda.epilogue import plain, scaled
from fewbits.schedules.cuda.problem import Linear
from fewbits.schedules.cuda.simt import Simt
from fewbits.schedules.cuda.weight_format import Dense
from fewbits.targets.cuda.testing import run_kernel, unavailable

SIMT = Simt()
SM_80 = ARCHITECTURES["sm_80"]
DTYPES = {
    "float8_e4m3fn": np.dtype(ml_dtypes.float8_e4m3fn),
    "float8_e5m2": np.dtype(ml_dtypes.float8_e5m2),
    "float16": np.dtype("float16"),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
    "float32": np.dtype("float32"),
}
SPACE = tuple(SIMT.space(Linear(1, 1, "int8", Dense("int8"), plain("int32", "int32")), SM_80))


@pytest.fixture(autouse=True)
def gpu() -> None:
    reason = unavailable("sm_80")
    if reason:
        pytest.skip(reason)


@pytest.mark.parametrize("sizes", SPACE, ids=lambda s: f"{s.rows}x{s.columns}")
@pytest.mark.parametrize(
    ("rows", "outputs", "inputs"), [(1, 1, 1), (5, 3, 7), (17, 65, 132), (70, 70, 33)]
)
def test_int8_is_exact(rows: int, outputs: int, inputs: int, sizes: object) -> None:
    problem = Linear(inputs, outputs, "int8", Dense("int8"), plain("int32", "int32"))
    random = np.random.default_rng(rows)
    x = random.integers(-128, 128, (rows, inputs), dtype=np.int8)
    w = random.integers(-128, 128, (outputs, inputs), dtype=np.int8)
    kernel = SIMT.build(problem, SM_80, sizes, "exact")
    (y,) = run_kernel(kernel, x, w, np.full((rows, outputs), -1, np.int32))
    np.testing.assert_array_equal(y, x.astype(np.int64) @ w.astype(np.int64).T)


@pytest.mark.parametrize("dtype", DTYPES)
def test_floats_are_within_the_bound_of_their_sums(dtype: str) -> None:
    rows, outputs, inputs = 9, 67, 61
    random = np.random.default_rng(3)
    x = random.standard_normal((rows, inputs)).astype(DTYPES[dtype])
    w = random.standard_normal((outputs, inputs)).astype(DTYPES[dtype])
    problem = Linear(inputs, outputs, dtype, Dense(dtype), plain("float32", "float32"))
    kernel = SIMT.build(problem, SM_80, SPACE[1], "floats")
    (y,) = run_kernel(kernel, x, w, np.full((rows, outputs), np.nan, np.float32))
    left, right = x.astype(np.float64), w.astype(np.float64)
    bound = inputs * 2.0**-23 * (np.abs(left) @ np.abs(right).T)
    assert (np.abs(y - left @ right.T) <= bound).all()


def test_epilogue_scales_rows_and_columns() -> None:
    rows, outputs, inputs = 6, 10, 20
    random = np.random.default_rng(4)
    x = random.integers(-9, 10, (rows, inputs), dtype=np.int8)
    w = random.integers(-9, 10, (outputs, inputs), dtype=np.int8)
    down = np.exp2(random.integers(-4, 1, rows)).astype(np.float32)
    across = np.exp2(random.integers(-4, 1, outputs)).astype(np.float32)
    problem = Linear(inputs, outputs, "int8", Dense("int8"), scaled("float32"))
    kernel = SIMT.build(problem, SM_80, SPACE[0], "scales")
    (y,) = run_kernel(kernel, x, w, down, across, np.zeros((rows, outputs), np.float32))
    expected = (x.astype(np.int64) @ w.astype(np.int64).T) * down[:, None] * across
    np.testing.assert_array_equal(y, expected)


@pytest.mark.parametrize("dtype", ["float8_e4m3fn", "float8_e5m2"])
def test_every_fp8_code_is_read_as_it_is(dtype: str) -> None:
    codes = np.arange(256, dtype=np.uint8).view(DTYPES[dtype])[:, None]
    one = np.ones((1, 1), DTYPES[dtype])
    problem = Linear(1, 1, dtype, Dense(dtype), plain("float32", "float32"))
    kernel = SIMT.build(problem, SM_80, SPACE[2], "codes")
    (y,) = run_kernel(kernel, codes, one, np.zeros((256, 1), np.float32))
    np.testing.assert_array_equal(y, codes.astype(np.float32))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("dtype", ["float8_e4m3fn", "float8_e5m2", "bfloat16", "float16", "int8"])
def test_results_of_few_bits_are_stored_as_they_are(dtype: str, architecture: str) -> None:
    # Small whole numbers: every one of these types has them.
    values = np.arange(-8, 9, dtype=np.float32)[:, None]
    one = np.ones((1, 1), np.float32)
    problem = Linear(1, 1, "float32", Dense("float32"), plain("float32", dtype))
    kernel = SIMT.build(problem, ARCHITECTURES[architecture], SPACE[0], "results")
    wanted = DTYPES.get(dtype, np.dtype("int8"))
    (y,) = run_kernel(kernel, values, one, np.zeros((17, 1), wanted))
    np.testing.assert_array_equal(y.astype(np.float32), values)
