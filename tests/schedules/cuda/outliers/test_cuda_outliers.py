"""Products over the columns of a list, on a GPU or the emulated one."""

from __future__ import annotations

import numpy as np
import pytest
from fewbits.schedules.cuda.epilogue import Epilogue, Operand, plain, scaled, then
from fewbits.schedules.cuda.outliers import OutlierProduct, list_columns, outlier_product
from fewbits.targets.cuda import testing
from tvm import tirx


@pytest.mark.parametrize("columns", [1, 31, 32, 100, 384])
@pytest.mark.parametrize("share", [0.0, 0.1, 1.0])
def test_lists_are_ascending_and_whole(gpu: testing.Gpu, columns: int, share: float) -> None:
    mask = (np.random.default_rng(columns).random(columns) < share).astype(np.float32)
    kernel, _ = list_columns(columns, gpu.architecture, "list_columns")
    untouched = np.full(columns, -1, np.int32)
    found, count = testing.run_kernel(kernel, mask, untouched, np.zeros(1, np.int32), outputs=2)
    places = np.flatnonzero(mask)
    assert count[0] == len(places)
    assert np.array_equal(found[: len(places)], places)
    assert (found[len(places) :] == -1).all()


def _run(
    problem: OutlierProduct,
    gpu: testing.Gpu,
    rows: int,
    listed: np.ndarray,
    extra: list[np.ndarray],
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """x, w, and what the kernel gives."""
    generator = np.random.default_rng(rows)
    x = generator.standard_normal((rows, problem.inputs)).astype(np.float16)
    if problem.weight == "int8":
        w = generator.integers(-127, 128, (problem.outputs, problem.inputs), dtype=np.int8)
    else:
        w = generator.standard_normal((problem.outputs, problem.inputs)).astype(np.float16)
    places = np.zeros(problem.inputs, np.int32)
    places[: len(listed)] = listed
    count = np.array([len(listed)], np.int32)
    kernel = outlier_product(problem, gpu.architecture, "outliers")
    y = np.full((rows, problem.outputs), np.nan, problem.epilogue.dtype)
    (result,) = testing.run_kernel(kernel, x, places, count, w, *extra, y)
    return x.astype(np.float64), w.astype(np.float64), result.astype(np.float64)


@pytest.mark.parametrize("gpu", ["sm_80", "sm_90a"], indirect=True)
@pytest.mark.parametrize("rows", [1, 16, 67])
@pytest.mark.parametrize("count", [0, 1, 33, 70])
def test_only_listed_columns_count(gpu: testing.Gpu, rows: int, count: int) -> None:
    problem = OutlierProduct(70, 100, "float16", "float16", plain("float32", "float32"))
    listed = np.sort(np.random.default_rng(count).permutation(70)[:count])
    x, w, result = _run(problem, gpu, rows, listed, [])
    expected = x[:, listed] @ w[:, listed].T
    assert np.abs(result - expected).max() <= 1e-4 * max(1.0, np.abs(expected).max())


def test_scales_and_the_other_product_are_part_of_the_epilogue(gpu: testing.Gpu) -> None:
    total = tirx.Var("sum", "float32")
    other = Operand.of("matrix", "float16", "other")
    added = Epilogue(total, total + tirx.Cast("float32", other.element), (other,))
    epilogue = then(scaled("float32", row=False, accumulator="float32"), added)
    problem = OutlierProduct(64, 24, "float16", "int8", epilogue)
    generator = np.random.default_rng(0)
    scales = generator.uniform(0.01, 0.02, 24).astype(np.float32)
    first = generator.standard_normal((9, 24)).astype(np.float16)
    listed = np.array([3, 17, 40])
    x, w, result = _run(problem, gpu, 9, listed, [scales, first])
    expected = x[:, listed] @ w[:, listed].T * scales + first
    assert np.abs(result - expected).max() <= 1e-4
