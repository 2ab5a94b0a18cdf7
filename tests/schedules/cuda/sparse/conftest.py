"""Products of 2:4 sparse weights, their exact results, and what they are compared with."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from fewbits.schedules.cuda.architecture import ARCHITECTURES
from fewbits.schedules.cuda.epilogue import Epilogue, Operand, plain, scaled
from fewbits.schedules.cuda.problem import Linear
from fewbits.schedules.cuda.sparse import Sparse24, SparseMma, SparseWgmma
from fewbits.schedules.cuda.sparse.wgmma_plan import SparseSizes as WarpgroupSizes
from fewbits.targets.cuda.testing import run_kernel
from tvm import tirx

_NUMPY: dict[str, Any] = {
    "bfloat16": ml_dtypes.bfloat16,
    "float8_e4m3fn": ml_dtypes.float8_e4m3fn,
    "float8_e5m2": ml_dtypes.float8_e5m2,
}


def numbers(rng: np.random.Generator, shape: tuple[int, int], dtype: str) -> np.ndarray:
    """Random numbers of all sizes that the dtype's products meet."""
    if dtype == "int8":
        return rng.integers(-128, 128, shape, dtype=np.int8)
    return rng.standard_normal(shape).astype(_NUMPY.get(dtype, dtype))


def pruned(
    rng: np.random.Generator, outputs: int, inputs: int, dtype: str, keep: int = 2
) -> np.ndarray:
    """A random matrix of which `keep` of any four neighbours may be other than zero."""
    weight = numbers(rng, (outputs, inputs), dtype)
    order = np.argsort(rng.random((outputs, -(-inputs // 4), 4)), axis=2)
    weight[(order >= keep).reshape(outputs, -1)[:, :inputs]] = 0
    return weight


def rich(accumulator: str, dtype: str) -> Epilogue:
    """An epilogue with all kinds of operands: scales, a bias, ReLU, and a residual."""
    total = tirx.Var("sum", accumulator)
    value: Any = total if accumulator == "float32" else tirx.Cast("float32", total)
    row = Operand.of("row", "float32", "row_scale")
    column = Operand.of("column", "float32", "column_scale")
    bias = Operand.of("column", "float32", "bias")
    residual = Operand.of("matrix", "float16", "residual")
    scale = Operand.of("one", "float32", "scale")
    value = tirx.Max(value * row.element * column.element + bias.element, tirx.const(0.0))
    value = value + tirx.Cast("float32", residual.element) * scale.element
    value = value if dtype == "float32" else tirx.Cast(dtype, value)
    return Epilogue(total, value, (row, column, bias, residual, scale))


@dataclasses.dataclass(frozen=True)
class Case:
    """A product with data.

    Attributes:
        problem: what is computed.
        x, weight: its matrices.
        operands: of the epilogue.
    """

    problem: Linear
    x: np.ndarray
    weight: np.ndarray
    operands: tuple[np.ndarray, ...]

    def run(self, architecture: str, sizes: Any) -> np.ndarray:
        """The kernel's result; what it does not write stays at its initial value, 77."""
        y = np.full((len(self.x), len(self.weight)), 77, self.problem.epilogue.dtype)
        template = SparseWgmma() if isinstance(sizes, WarpgroupSizes) else SparseMma()
        kernel = template.build(self.problem, ARCHITECTURES[architecture], sizes, "product")
        packed = self.problem.weight.pack(self.weight)
        (result,) = run_kernel(kernel, self.x, *packed, *self.operands, y)
        return result

    def check(self, architecture: str, sizes: Any) -> None:
        """Run the kernel and compare: int8 for equality, floats by a bound."""
        result = self.run(architecture, sizes)
        x, weight = self.x.astype(np.float64), self.weight.astype(np.float64)
        exact, size = x @ weight.T, np.abs(x) @ np.abs(weight).T
        bound = (x.shape[1] + 8) * 2.0**-24 * size
        if self.problem.accumulator == "int32":
            bound = 0.0 * size
        count = len(self.operands)
        if count == 2:
            row, column = self.operands[0][:, None], self.operands[1]
            expected = (exact.astype(np.float32) * row * column).astype(result.dtype)
            np.testing.assert_array_equal(result, expected)
            return
        if count == 5:
            row, column, bias, residual, scale = self.operands
            exact = np.maximum(exact * row[:, None] * column + bias, 0) + residual * scale
            bound = bound * row[:, None] * column + 1e-5
        epsilon = float(np.finfo(result.dtype).eps)
        error = np.abs(result.astype(np.float64) - exact)
        assert (error <= bound + epsilon * np.abs(exact) + 1e-6).all()


def make_case(
    m: int, n: int, k: int, dtype: str = "int8", *, kind: str = "", weight: Any = None
) -> Case:
    """A case with random data, the same for equal arguments.

    Args:
        m, n, k: rows, outputs, inputs.
        dtype: of both sides.
        kind: ``rich`` for all kinds of operands.
        weight: the matrix, or None for a random one.
    """
    rng = np.random.default_rng(m * 1000 + n * 10 + k)
    accumulator = "int32" if dtype == "int8" else "float32"
    usual = scaled("float16") if dtype == "int8" else plain("float32", "float16")
    epilogue = rich(accumulator, "float16") if kind == "rich" else usual
    shapes = {"row": (m,), "column": (n,), "matrix": (m, n), "one": (1,)}
    operands = [
        rng.uniform(0.01, 0.02, shapes[o.extends]).astype(o.dtype) for o in epilogue.operands
    ]
    if weight is None:
        weight = pruned(rng, n, k, dtype)
    problem = Linear(k, n, dtype, Sparse24(dtype), epilogue)
    return Case(problem, numbers(rng, (m, k), dtype), weight, tuple(operands))


@pytest.fixture
def case() -> Callable[..., Case]:
    """`make_case`, for tests."""
    return make_case


@pytest.fixture
def prune() -> Callable[..., np.ndarray]:
    """`pruned`, for tests."""
    return pruned
