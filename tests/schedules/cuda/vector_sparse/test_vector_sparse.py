"""Vector-sparse products against integers, on a GPU or the emulated one."""

from __future__ import annotations

import numpy as np
import pytest
from fewbits.schedules.cuda.architecture import ARCHITECTURES, Architecture
from fewbits.schedules.cuda.epilogue import plain
from fewbits.schedules.cuda.vector_sparse import (
    SampledProduct,
    SparseProduct,
    SrBcrs,
    digits,
    sampled_product,
    sparse_product,
)
from fewbits.targets.cuda import testing
from fewbits.targets.cuda.compile import compile_kernels
from fewbits.targets.cuda.machine_code import report_module
from fewbits.targets.cuda.toolchain import disassembler

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


@pytest.mark.parametrize(
    ("bits", "length", "shape", "inputs", "share"),
    [
        (16, 8, (40, 70), 64, 0.5), (8, 8, (64, 64), 32, 0.9), (4, 8, (33, 20), 96, 0.3),
        (8, 2, (9, 50), 20, 0.6), (8, 4, (30, 1), 4, 0.2), (8, 8, (16, 48), 64, 1.0),
    ],
)  # fmt: skip
def test_products_sampled_by_a_mask(
    gpu: testing.Gpu, bits: int, length: int, shape: tuple[int, int], inputs: int, share: float
) -> None:
    generator = np.random.default_rng(bits)
    limit = 1 << (bits - 1)
    a, b = (generator.integers(-limit, limit, (size, inputs)) for size in shape)
    kept = generator.random((-(-shape[0] // length), shape[1])) >= share
    mask = SrBcrs.of(np.repeat(kept, length, axis=0)[: shape[0]].astype(np.int64), length)
    problem = SampledProduct(inputs, *shape, length, mask.strides, bits)
    assert problem.refusal() is None
    kernel = sampled_product(problem, gpu.architecture, "sampled")
    columns = mask.columns if mask.strides else np.full(32, -1, np.int32)
    poison = np.full((max(mask.strides, 1), length, 32), -(2**31), np.int32)
    given = (digits(a, bits), digits(b, bits), mask.ranges, columns, poison)
    (result,) = testing.run_kernel(kernel, *given)
    wide = SrBcrs(mask.shape, length, mask.ranges, mask.columns, result[: mask.strides])
    expected = (a @ b.T) * mask.dense()
    np.testing.assert_array_equal(wide.dense(), expected.astype(np.int32))
    vectors = result[: mask.strides].transpose(0, 2, 1).reshape(-1, length)
    assert not vectors[mask.columns < 0].any()


def test_machine_code_is_products_of_bytes_without_spills() -> None:
    reason = testing.no_compiler()
    if reason is not None or disassembler("cuobjdump") is None or disassembler("nvdisasm") is None:
        pytest.skip(reason or "no disassembler")
    for architecture in ARCHITECTURES.values():
        kernels = [
            sparse_product(
                SparseProduct(512, 512, 8, 60, *pair, plain("int32", "int32")), architecture,
                f"spmm_{pair[0]}_{pair[1]}",
            )
            for pair in PAIRS
        ] + [
            sampled_product(
                SampledProduct(64, 512, 512, 8, 60, bits), architecture, f"sddmm_{bits}"
            )
            for bits in (4, 8, 16)
        ]  # fmt: skip
        (module,) = compile_kernels(kernels)
        codes = report_module(module, architecture)
        for kernel in kernels:
            code = codes[f"{kernel.name}_kernel"]
            assert code.count("IMMA") > 0, kernel.name
            assert (code.spill, code.stack) == (0, 0), (kernel.name, architecture.name)
