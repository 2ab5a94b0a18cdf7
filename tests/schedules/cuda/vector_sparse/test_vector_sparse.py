"""Vector-sparse products against integers, on a GPU or the emulated one."""

from __future__ import annotations

import numpy as np
import pytest
from fewbits.schedules.cuda.architecture import ARCHITECTURES, Architecture
from fewbits.schedules.cuda.epilogue import plain
from fewbits.schedules.cuda.vector_sparse import SparseProduct, SrBcrs, digits, sparse_product
from fewbits.targets.cuda import testing

#: Bits of the sparse and the dense side.
PAIRS = [(16, 16), (16, 8), (8, 8), (16, 4), (12, 8), (12, 4), (8, 4), (4, 4)]


def sparse_matrix(
    generator: np.random.Generator, shape: tuple[int, int], length: int, share: float, bits: int
) -> np.ndarray:
    """Integers of which a share of the vectors is zero."""
    limit = 1 << (bits - 1)
    rows, columns = shape
    kept = generator.random((-(-rows // length), columns)) >= share
    dense = generator.integers(-limit, limit, shape)
    return dense * np.repeat(kept, length, axis=0)[:rows]


def run(
    architecture: Architecture,
    w: np.ndarray,
    length: int,
    pair: tuple[int, int],
    rows: int,
) -> None:
    """The kernel's sums are those of integers."""
    outputs, inputs = w.shape
    generator = np.random.default_rng(rows)
    limit = 1 << (pair[1] - 1)
    x = generator.integers(-limit, limit, (inputs, rows))
    stored = SrBcrs.of(w, length)
    problem = SparseProduct(inputs, outputs, length, stored.strides, *pair, plain("int32", "int32"))
    kernel = sparse_product(problem, architecture, "vector_sparse")
    right = digits(np.pad(x, ((0, 0), (0, -rows % 64))), pair[1])
    poison = np.full((rows, outputs), -(2**31), np.int32)
    (result,) = testing.run_kernel(kernel, right, *problem.pack_weight(stored), poison)
    expected = (x.T @ w.T).astype(np.int64)
    np.testing.assert_array_equal(result, expected.astype(np.int32))


@pytest.mark.parametrize("gpu", list(ARCHITECTURES), indirect=True)
@pytest.mark.parametrize("length", [2, 4, 8])
def test_vectors_of_any_length(gpu: testing.Gpu, length: int) -> None:
    w = sparse_matrix(np.random.default_rng(length), (45, 300), length, 0.7, 8)
    run(gpu.architecture, w, length, (8, 8), 70)


@pytest.mark.parametrize("pair", PAIRS)
def test_all_pairs_of_precisions(gpu: testing.Gpu, pair: tuple[int, int]) -> None:
    w = sparse_matrix(np.random.default_rng(7), (24, 130), 8, 0.6, pair[0])
    run(gpu.architecture, w, 8, pair, 33)


@pytest.mark.parametrize(
    ("shape", "share", "rows"),
    [
        ((32, 200), 1.0, 20), ((64, 1000), 0.98, 65), ((1, 64), 0.5, 9), ((16, 1), 0.0, 64),
        ((16, 7), 0.3, 1), ((40, 256), 0.0, 130),
    ],
)  # fmt: skip
def test_any_sparsity_and_extent(
    gpu: testing.Gpu, shape: tuple[int, int], share: float, rows: int
) -> None:
    w = sparse_matrix(np.random.default_rng(3), shape, 4, share, 8)
    run(gpu.architecture, w, 4, (8, 8), rows)
    assert np.array_equal(SrBcrs.of(w, 4).dense(), w)


def test_empty_vector_rows_among_others(gpu: testing.Gpu) -> None:
    w = sparse_matrix(np.random.default_rng(5), (64, 90), 8, 0.5, 8)
    w[8:24] = 0
    w[56:] = 0
    run(gpu.architecture, w, 8, (8, 8), 40)


def test_storage_fills_up_strides() -> None:
    w = np.zeros((5, 40), np.int64)
    w[0, 3], w[4, 39] = 7, -2
    stored = SrBcrs.of(w, 4)
    assert stored.ranges.tolist() == [0, 1, 32, 33]
    assert stored.columns[[0, 1, 32, 33]].tolist() == [3, -1, 39, -1]
    assert stored.values.shape == (2, 4, 32)
    np.testing.assert_array_equal(stored.dense(), w)
    with pytest.raises(ValueError, match="vectors of 3"):
        SrBcrs.of(w, 3)


@pytest.mark.parametrize("bits", [4, 8, 12, 16])
def test_digits_are_bytes_below_a_signed_one(bits: int) -> None:
    values = np.arange(-(1 << (bits - 1)), 1 << (bits - 1), 3)
    parts = digits(values, bits).astype(np.int64)
    top = parts[-1].astype(np.int8)
    total = top.astype(np.int64) << 8 * (len(parts) - 1)
    total += sum(part << 8 * place for place, part in enumerate(parts[:-1]))
    np.testing.assert_array_equal(total, values)
    with pytest.raises(ValueError, match="bits"):
        digits(np.array([1 << (bits - 1)]), bits)
