"""Products, their exact results, and what they are compared with."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Literal

import ml_dtypes
import numpy as np
import pytest
from fewbits.schedules.cuda.architecture import SM_90A
from fewbits.schedules.cuda.epilogue import Epilogue, Operand, plain, scaled
from fewbits.schedules.cuda.hopper import Wgmma
from fewbits.schedules.cuda.hopper.sizes import Sizes
from fewbits.schedules.cuda.problem import Linear
from fewbits.schedules.cuda.weight_format import Dense
from fewbits.targets.cuda.testing import run_kernel
from tvm import tirx

Kind = Literal["plain", "scaled", "rich", "requantized"]

_NUMPY: dict[str, Any] = {
    "bfloat16": ml_dtypes.bfloat16,
    "float8_e4m3fn": ml_dtypes.float8_e4m3fn,
    "float8_e5m2": ml_dtypes.float8_e5m2,
}


def numpy_dtype(name: str) -> np.dtype[Any]:
    """numpy's dtype of this name, or ml_dtypes'."""
    return np.dtype(_NUMPY.get(name, name))


def epilogue_of(kind: Kind, accumulator: str, dtype: str) -> Epilogue:
    """An epilogue with all kinds of operands (``rich``), or a usual one."""
    if kind == "plain":
        return plain(accumulator, dtype)
    if kind == "scaled":
        return scaled(dtype)
    total = tirx.Var("sum", accumulator)
    value: Any = total if accumulator == "float32" else tirx.Cast("float32", total)
    row = Operand.of("row", "float32", "row_scale")
    column = Operand.of("column", "float32", "column_scale")
    if kind == "requantized":
        value = tirx.round(value * row.element * column.element)
        value = tirx.Min(tirx.Max(value, tirx.const(-128.0, "float32")), tirx.const(127.0))
        return Epilogue(total, tirx.Cast(dtype, value), (row, column))
    bias = Operand.of("column", "float32", "bias")
    residual = Operand.of("matrix", "float16", "residual")
    scale = Operand.of("one", "float32", "scale")
    value = tirx.Max(value * row.element * column.element + bias.element, tirx.const(0.0))
    value = value + tirx.Cast("float32", residual.element) * scale.element
    value = value if dtype == "float32" else tirx.Cast(dtype, value)
    return Epilogue(total, value, (row, column, bias, residual, scale))


@dataclasses.dataclass(frozen=True)
class Case:
    """A product with data and what comes out.

    Attributes:
        problem: what is computed.
        arguments: of the kernel, without the result.
        expected: float64, before the result is rounded to its dtype.
        bound: how far a sum that was rounded to float32 at every step may be from it.
    """

    problem: Linear
    arguments: tuple[np.ndarray, ...]
    expected: np.ndarray
    bound: np.ndarray

    def run(self, sizes: Sizes) -> np.ndarray:
        """The kernel's result; what it does not write stays at its initial value, 77."""
        m, n = self.expected.shape
        y = np.full((m, n), 77, numpy_dtype(self.problem.epilogue.dtype))
        kernel = Wgmma().build(self.problem, SM_90A, sizes, "product")
        (result,) = run_kernel(kernel, *self.arguments, y)
        return result

    def check(self, sizes: Sizes) -> None:
        """Run the kernel and compare."""
        result = self.run(sizes)
        if self.problem.accumulator == "int32" and len(self.problem.epilogue.operands) < 3:
            np.testing.assert_array_equal(result, self.expected.astype(result.dtype))
            return
        epsilon = float(ml_dtypes.finfo(result.dtype).eps)
        allowed = self.bound + epsilon * np.abs(self.expected) + 1e-6
        error = np.abs(result.astype(np.float64) - self.expected)
        assert (error <= allowed).all(), f"{(error - allowed).max()} beyond the bound"


def make_case(
    m: int,
    n: int,
    k: int,
    activation: str = "int8",
    weight: str | None = None,
    kind: Kind = "scaled",
    dtype: str = "float16",
) -> Case:
    """A case with random data, the same for equal arguments."""
    rng = np.random.default_rng(m * 1000 + n * 10 + k)
    weight = weight or activation
    accumulator = "int32" if activation == "int8" else "float32"
    epilogue = epilogue_of(kind, accumulator, dtype)
    problem = Linear(k, n, activation, Dense(weight), epilogue)
    x, w = _numbers(rng, (m, k), activation), _numbers(rng, (n, k), weight)
    shapes = {"row": (m,), "column": (n,), "matrix": (m, n), "one": (1,)}
    operands = [
        rng.uniform(0.01, 0.02, shapes[o.extends]).astype(o.dtype) for o in epilogue.operands
    ]
    exact = x.astype(np.float64) @ w.astype(np.float64).T
    size = np.abs(x.astype(np.float64)) @ np.abs(w.astype(np.float64)).T
    expected, slope = _finish(kind, exact, operands)
    bound = (k + 8) * 2.0**-24 * size * slope if accumulator == "float32" else 0.0 * size
    return Case(problem, (x, w, *operands), expected, bound)


def _numbers(rng: np.random.Generator, shape: tuple[int, int], dtype: str) -> np.ndarray:
    if dtype == "int8":
        return rng.integers(-128, 128, shape, dtype=np.int8)
    return rng.standard_normal(shape).astype(np.float32).astype(numpy_dtype(dtype))


def _finish(
    kind: Kind, exact: np.ndarray, operands: Sequence[np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """The epilogue in numpy, and how much of an error of the sum reaches the result.

    Scales are applied in float32, as the kernel does: its results are then equal.
    """
    if kind == "plain":
        return exact, np.ones_like(exact)
    row, column = operands[0].reshape(-1, 1), operands[1]
    product = exact.astype(np.float32) * row * column
    slope = (row * column).astype(np.float64)
    if kind == "scaled":
        return product.astype(np.float64), slope
    if kind == "requantized":
        return np.clip(np.rint(product), -128, 127).astype(np.float64), slope
    bias, residual, scale = operands[2:]
    value = np.maximum(exact * row * column + bias, 0)
    return value + residual.astype(np.float64) * scale.astype(np.float64), slope


@pytest.fixture
def case() -> Callable[..., Case]:
    """`make_case`, for tests."""
    return make_case
