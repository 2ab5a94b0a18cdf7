"""The tensor-core kernels' results, on a GPU or an emulated one, against exact arithmetic."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from fewbits.schedules.cuda.architecture import ARCHITECTURES
from fewbits.schedules.cuda.epilogue import Epilogue, Operand, plain
from fewbits.schedules.cuda.mma import Mma, Sizes
from fewbits.schedules.cuda.mma.scheduled import Decisions, fixed_rows_kernel
from fewbits.schedules.cuda.problem import Linear
from fewbits.schedules.cuda.weight_format import Dense
from fewbits.targets.cuda.testing import run_kernel, unavailable
from tvm import tirx

MMA = Mma()
DTYPES = {
    "float16": np.dtype("float16"),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
    "float8_e4m3fn": np.dtype(ml_dtypes.float8_e4m3fn),
    "float8_e5m2": np.dtype(ml_dtypes.float8_e5m2),
}
SLICED = Sizes(16, 16, 128, 1, 1, 2, 3)
DEEP = Sizes(16, 32, 256, 1, 1, 4, 4)
SQUARE = Sizes(64, 64, 64, 2, 2, 1, 4)
WIDE = Sizes(64, 128, 128, 2, 2, 1, 2)


@pytest.fixture(autouse=True)
def gpu(request: pytest.FixtureRequest) -> None:
    called = getattr(request.node, "callspec", None)
    reason = unavailable(called.params.get("architecture", "sm_80") if called else "sm_80")
    if reason:
        pytest.skip(reason)


def integers(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).integers(-128, 128, shape, dtype=np.int8)


def exact(x: np.ndarray, w: np.ndarray) -> np.ndarray:
    return x.astype(np.int64) @ w.astype(np.int64).T


@pytest.mark.parametrize(
    ("rows", "outputs", "inputs", "sizes"),
    [
        (1, 64, 256, SLICED),
        (5, 100, 272, DEEP),
        (16, 8, 16, SLICED),
        (17, 101, 512, DEEP),
        (100, 64, 144, SQUARE),
        (257, 70, 80, WIDE),
        (65, 33, 1040, SQUARE),
    ],
)
def test_int8_is_exact(rows: int, outputs: int, inputs: int, sizes: Sizes) -> None:
    problem = Linear(inputs, outputs, "int8", Dense("int8"), plain("int32", "int32"))
    kernel = MMA.build(problem, ARCHITECTURES["sm_80"], sizes, "exact")
    x, w = integers(rows, inputs), integers(outputs, inputs)
    (y,) = run_kernel(kernel, x, w, np.full((rows, outputs), -1, np.int32))
    np.testing.assert_array_equal(y, exact(x, w))


@pytest.mark.parametrize("sizes", [SLICED, SQUARE])
@pytest.mark.parametrize(
    ("architecture", "dtype"),
    [
        ("sm_80", "float16"),
        ("sm_80", "bfloat16"),
        ("sm_90a", "float16"),
        ("sm_89", "float8_e4m3fn"),
        ("sm_89", "float8_e5m2"),
    ],
)
def test_floats_are_within_the_bound_of_their_sums(
    architecture: str, dtype: str, sizes: Sizes
) -> None:
    rows, outputs, inputs = 17, 40, 176
    random = np.random.default_rng(1)
    x = random.standard_normal((rows, inputs)).astype(DTYPES[dtype])
    w = random.standard_normal((outputs, inputs)).astype(DTYPES[dtype])
    problem = Linear(inputs, outputs, dtype, Dense(dtype), plain("float32", "float32"))
    kernel = MMA.build(problem, ARCHITECTURES[architecture], sizes, "floats")
    (y,) = run_kernel(kernel, x, w, np.full((rows, outputs), np.nan, np.float32))
    left, right = x.astype(np.float64), w.astype(np.float64)
    bound = inputs * 2.0**-23 * (np.abs(left) @ np.abs(right).T)
    assert (np.abs(y - left @ right.T) <= bound).all()


@pytest.mark.parametrize("outputs", [64, 70, 33])
def test_epilogue_reads_every_kind_of_operand(outputs: int) -> None:
    total = tirx.Var("sum", "int32")
    row = Operand.of("row", "float32", "row")
    column = Operand.of("column", "float16", "column")
    matrix = Operand.of("matrix", "int8", "matrix")
    one = Operand.of("one", "float32", "one")
    value = tirx.Cast("float32", total) * row.element + tirx.Cast("float32", column.element)
    value = tirx.max(value + tirx.Cast("float32", matrix.element) * one.element, tirx.const(0.0))
    problem = Linear(
        64, outputs, "int8", Dense("int8"), Epilogue(total, value, (row, column, matrix, one))
    )
    rows = 21
    random = np.random.default_rng(2)
    x, w = integers(rows, 64), integers(outputs, 64)
    scales = np.exp2(random.integers(-6, 0, rows)).astype(np.float32)
    bias = random.integers(-100, 100, outputs).astype(np.float16)
    residual = integers(rows, outputs)
    kernel = MMA.build(problem, ARCHITECTURES["sm_80"], SQUARE, "epilogue")
    arrays = (x, w, scales, bias, residual, np.full(1, 0.5, np.float32))
    (y,) = run_kernel(kernel, *arrays, np.full((rows, outputs), np.nan, np.float32))
    expected = exact(x, w) * scales[:, None] + bias.astype(np.float64) + residual * 0.5
    np.testing.assert_array_equal(y, np.maximum(expected, 0).astype(np.float32))


def test_sums_wrap_as_int32_does() -> None:
    inputs = 2**17 + 16
    problem = Linear(inputs, 8, "int8", Dense("int8"), plain("int32", "int32"))
    kernel = MMA.build(problem, ARCHITECTURES["sm_80"], DEEP, "wraps")
    x, w = np.full((1, inputs), -128, np.int8), np.full((8, inputs), -128, np.int8)
    (y,) = run_kernel(kernel, x, w, np.zeros((1, 8), np.int32))
    np.testing.assert_array_equal(y, exact(x, w).astype(np.int32))


@pytest.mark.parametrize("dtype", ["int8", "float16"])
def test_scheduled_kernels_agree(dtype: str) -> None:
    accumulator = "int32" if dtype == "int8" else "float32"
    depth = (2, 2) if dtype == "int8" else (4, 2)
    problem = Linear(128, 96, dtype, Dense(dtype), plain(accumulator, accumulator))
    decisions = Decisions((2, 1, 2), (1, 3, 2), depth)
    kernel = fixed_rows_kernel(problem, 64, ARCHITECTURES["sm_80"], decisions, "scheduled")
    x, w = integers(64, 128), integers(96, 128)
    if dtype == "float16":
        # Their products' sums are whole numbers below 2^24: float32 has them exactly.
        x, w = x.astype(np.float16), w.astype(np.float16)
    (y,) = run_kernel(kernel, x, w, np.zeros((64, 96), accumulator))
    np.testing.assert_array_equal(y, exact(x, w))
