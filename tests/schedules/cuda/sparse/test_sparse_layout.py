"""The stored form of 2:4 weights: exact, padded, and in the order that the hardware reads."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from fewbits.errors import FewbitsError
from fewbits.schedules.cuda.intrinsics.fragments import mma_a
from fewbits.schedules.cuda.intrinsics.sparsity import Sparsity
from fewbits.schedules.cuda.sparse.layout import PRODUCTS, VALUES, Sparse24, fits
from hypothesis import given, settings
from hypothesis import strategies as st

DTYPES = ("int8", "float16", "bfloat16", "float8_e4m3fn", "float8_e5m2")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("n", "k"), [(1, 4), (64, 128), (70, 100), (129, 260), (3, 7)])
def test_decoding_gives_the_matrix_back(
    dtype: str, n: int, k: int, prune: Callable[..., np.ndarray]
) -> None:
    layout = Sparse24(dtype)
    weight = prune(np.random.default_rng(n + k), n, k, dtype)
    packed = layout.pack(weight)
    (array,) = layout.arrays(n, k)
    assert packed[0].shape == array.shape
    assert str(packed[0].dtype) == array.dtype
    np.testing.assert_array_equal(layout.decoded(packed, n, k), weight.astype(np.float64))


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 2), st.integers(0, 1000))
@settings(max_examples=60, deadline=None)
def test_whatever_keeps_two_of_four_is_stored_exactly(n: int, k: int, keep: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    weight = rng.integers(-128, 128, (n, 4 * k), dtype=np.int8)
    order = np.argsort(rng.random((n, k, 4)), axis=2).reshape(n, -1)
    weight[order >= keep] = 0
    layout = Sparse24("int8")
    np.testing.assert_array_equal(layout.decoded(layout.pack(weight), n, 4 * k), weight)


def test_other_patterns_fit_where_each_four_neighbours_keep_two() -> None:
    row = np.zeros((1, 16), np.int8)
    row[0, [0, 3, 5, 6, 8, 12]] = 1  # 4:8 with two in each half, then 1:4
    assert fits(row)
    row[0, 1] = 1  # 5:8
    assert not fits(row)
    with pytest.raises(FewbitsError) as caught:
        Sparse24("int8").pack(row)
    assert caught.value.code == "no-layout"


def test_an_empty_matrix_has_valid_metadata() -> None:
    layout = Sparse24("int8")
    (pieces,) = layout.pack(np.zeros((64, 128), np.int8))
    assert not pieces[0, 0, : VALUES // 4].any()
    # Places 0 and 1 of every chunk: indices must ascend, also where nothing is kept.
    assert set(pieces[0, 0, VALUES // 4 :].tolist()) == {0x44444444}
    assert not layout.decoded([pieces], 64, 128).any()


def test_bytes_per_weight() -> None:
    assert Sparse24("int8").piece_bytes == 64 * 128 * 5 // 8
    assert Sparse24("float16").piece_bytes == 64 * 128 * 9 // 16


def _cutlass_units(codes: np.ndarray, bits: int) -> np.ndarray:
    """Metadata words [32] of one tile, by the other description that there is.

    CUTLASS describes Ampere's metadata as units, of 16 bits (16-bit elements, in groups of 32 rows)
    or 32 bits (8-bit elements, in groups of 16), which it reorders: rows are interleaved by eight,
    the 2 x 2 blocks of units are transposed, and pairs of columns lie together.
    """
    rows, chunks = codes.shape
    per_unit = 4 if bits == 16 else 8
    interleave = rows // 8
    units = np.zeros((rows, chunks // per_unit), np.uint64)
    for chunk in range(chunks):
        shift = np.uint64(4 * (chunk % per_unit))
        units[:, chunk // per_unit] |= codes[:, chunk].astype(np.uint64) << shift
    placed = np.zeros_like(units)
    for row in range(rows):
        for column in range(units.shape[1]):
            to = row % 8 * interleave + row // 8
            there = (to - to % 2 + column % 2, column - column % 2 + to % 2)
            placed[there] = units[row, column]
    flat = placed.reshape(-1)  # rows of two units each
    if bits == 16:
        return (flat[0::2] | flat[1::2] << np.uint64(16)).astype(np.uint32)
    return flat.astype(np.uint32)


def test_metadata_of_ampere_agree_with_a_second_description() -> None:
    rng = np.random.default_rng(0)
    choices = np.array([0x4, 0x8, 0x9, 0xC, 0xD, 0xE], np.uint8)
    codes = rng.choice(choices, (16, 16))
    np.testing.assert_array_equal(Sparsity(8, 64).metadata(codes), _cutlass_units(codes, 8))
    # With 16 bits, 32 rows share words: the selector says which 16 rows are meant.
    both = rng.choice(choices, (32, 8))
    form = Sparsity(16, 32)
    words = form.metadata(both[:16], 0) | form.metadata(both[16:], 1)
    np.testing.assert_array_equal(words, _cutlass_units(both, 16))


@pytest.mark.parametrize("dtype", ["int8", "float16"])
def test_pieces_hold_what_lanes_load(dtype: str, prune: Callable[..., np.ndarray]) -> None:
    layout = Sparse24(dtype)
    bits, k = 8 * layout.item, 64 // layout.item
    weight = prune(np.random.default_rng(1), 64, 2 * k, dtype)
    (pieces,) = layout.pack(weight)
    values = pieces[0, 0, : VALUES // 4].view(np.uint8).reshape(8, 4, 8, 16)
    metadata = pieces[0, 0, VALUES // 4 :].reshape(4, 32, layout.words)
    form = Sparsity(bits, k)
    unsigned = f"uint{bits}"
    for tile in range(4):
        for product in range(PRODUCTS):
            part = weight[16 * tile : 16 * tile + 16, product * k : (product + 1) * k]
            kept, codes = form.compress(np.ascontiguousarray(part).view(unsigned))
            cores = values[2 * tile : 2 * tile + 2, 2 * product : 2 * product + 2]
            rows = np.ascontiguousarray(cores.transpose(0, 2, 1, 3)).reshape(16, 32)
            np.testing.assert_array_equal(
                mma_a(bits, k // 2).pack(rows.view(unsigned)), mma_a(bits, k // 2).pack(kept)
            )
            word, selector = (product, 0) if layout.words == 2 else (0, product)
            expected = form.metadata(codes, selector)
            used = form.metadata(np.full_like(codes, 15), selector)
            np.testing.assert_array_equal(metadata[tile, :, word] & used, expected)
