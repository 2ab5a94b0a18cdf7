"""``mma.sp`` with random 2:4 matrices and every selector, against numpy's dense product."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
from fewbits.schedules.cuda.intrinsics.fragments import mma_a, mma_b, mma_sum
from fewbits.schedules.cuda.intrinsics.sparsity import Sparsity

FLOATS: dict[str, Any] = {
    "f16": np.float16,
    "bf16": ml_dtypes.bfloat16,
    "tf32": np.float32,
    "e4m3": ml_dtypes.float8_e4m3fn,
}
CASES = [
    ("f16", 16, 16),
    ("f16", 16, 32),
    ("bf16", 16, 16),
    ("bf16", 16, 32),
    ("tf32", 32, 8),
    ("tf32", 32, 16),
    ("e4m3", 8, 64),
    ("s8", 8, 32),
    ("s8", 8, 64),
    ("s4", 4, 64),
    ("s4", 4, 128),
]


def sparse_matrix(rng: np.random.Generator, rows: int, form: Sparsity) -> np.ndarray:
    """Integers -7 to 7 (so exact in every format), half of each chunk zero."""
    pair = 2 if form.bits == 4 else 1
    matrix = rng.integers(-7, 8, (rows, form.k))
    cells = matrix.reshape(rows, form.k // form.chunk, form.chunk // pair, pair)
    order = rng.permuted(np.broadcast_to(np.arange(cells.shape[2]), cells.shape[:3]), axis=2)
    cells[order >= cells.shape[2] // 2] = 0
    return matrix


def element_bits(values: np.ndarray, name: str) -> np.ndarray:
    """Integers as a format's bits."""
    if name not in FLOATS:
        return values
    typed = values.astype(FLOATS[name])
    return typed.view(np.dtype(f"u{typed.itemsize}"))


@pytest.mark.parametrize("ordered", [1, 2])
@pytest.mark.parametrize(("name", "bits", "k"), CASES)
def test_sparse_product(
    tensor: Any, rng: np.random.Generator, name: str, bits: int, k: int, ordered: int
) -> None:
    """Every selector; the lanes that it does not name hold noise."""
    form = Sparsity(bits, k)
    total = "f32" if name in FLOATS else "s32"
    a = sparse_matrix(rng, 16, form)
    b = rng.integers(-7, 8, (k, 8))
    kept, codes = form.compress(a)
    assert kept.shape == (16, k // 2)
    sums = mma_sum(32)
    for selector in range(form.selectors):
        metadata = form.metadata(codes, selector)
        used = form.metadata(np.full_like(codes, 15), selector)
        metadata |= rng.integers(0, 2**32, 32, dtype=np.uint32) & ~used
        d = tensor.mma(
            (16, 8, k),
            (total, name, name, total),
            mma_a(bits, k // 2).pack(element_bits(kept, name)),
            mma_b(bits, k).pack(element_bits(b, name)),
            np.zeros((4, 32), np.uint32),
            metadata,
            sparse=ordered,
            selector=selector,
        )
        found = sums.unpack(d).astype(np.uint32).view(np.float32 if total == "f32" else np.int32)
        np.testing.assert_array_equal(found, a @ b)


def test_unordered_metadata(tensor: Any, rng: np.random.Generator) -> None:
    """``mma.sp`` takes indices in any order, ``::ordered_metadata`` does not."""
    form = Sparsity(8, 64)
    a = sparse_matrix(rng, 16, form)
    b = rng.integers(-128, 128, (64, 8))
    kept, codes = form.compress(a)
    swapped = kept.reshape(16, -1, 2)[:, :, ::-1].reshape(kept.shape)
    operands = (mma_a(8, 32).pack(swapped), mma_b(8, 64).pack(b), np.zeros((4, 32), np.uint32))
    metadata = form.metadata(codes >> 2 | (codes & 3) << 2)
    d = tensor.mma((16, 8, 64), ("s32", "s8", "s8", "s32"), *operands, metadata, sparse=1)
    np.testing.assert_array_equal(mma_sum().unpack(d).astype(np.uint32).view(np.int32), a @ b)
    with pytest.raises(tensor.Error, match="metadata"):
        tensor.mma((16, 8, 64), ("s32", "s8", "s8", "s32"), *operands, metadata, sparse=2)


def test_selector_and_metadata_are_checked(tensor: Any) -> None:
    """A selector that the shape does not have; an index twice."""
    a, b, c = (np.zeros((count, 32), np.uint32) for count in (4, 4, 4))
    types = ("s32", "s8", "s8", "s32")
    fine = Sparsity(8, 64).metadata(np.full((16, 16), 0b0100))
    with pytest.raises(tensor.Error, match="selector"):
        tensor.mma((16, 8, 64), types, a, b, c, fine, sparse=1, selector=1)
    with pytest.raises(tensor.Error, match="metadata"):
        tensor.mma((16, 8, 64), types, a, b, c, fine | 0b0101, sparse=1)
