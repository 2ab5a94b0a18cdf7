"""Metadata of 2:4 sparsity: its order, as CUTLASS states it, and compression."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from fewbits.schedules.cuda.intrinsics.sparsity import Sparsity
from hypothesis import given
from hypothesis import strategies as st

FORMS = [Sparsity(*x) for x in [(16, 16), (16, 32), (32, 8), (32, 16), (8, 32), (8, 64)]]
FORMS += [Sparsity(4, 64), Sparsity(4, 128)]


@pytest.mark.parametrize("form", FORMS, ids=repr)
def test_holders_share_no_bits(form: Sparsity) -> None:
    """Every chunk has four bits of its own, for every selector; together they fill the lanes."""
    taken = np.zeros(32, np.uint64)
    for selector in range(form.selectors):
        lane, shift = form.holders()
        lane = lane + selector * (4 // form.selectors)
        spot = lane * 32 + shift
        assert np.unique(spot).size == spot.size
        used = form.metadata(np.full(lane.shape, 15), selector).astype(np.uint64)
        assert not (taken & used).any()
        taken |= used
    assert (taken == 0xFFFFFFFF).all()


# CuTe's metadata layouts of wgmma: lane and value (an element of K, one bit each) to row + 64 k.
LAYOUTS = {
    (8, 64): (((2, 8), (2, 2048), (8, 1), (4, 16)), ((32, 64),)),
    (16, 32): (((2, 1024), (2, 0), (8, 1), (4, 16)), ((16, 64), (2, 8))),
    (32, 16): (((2, 512), (2, 0), (8, 1), (4, 16)), ((8, 64), (2, 8))),
}


@pytest.mark.parametrize(("bits", "k"), LAYOUTS)
def test_order_as_cutlass_states_it(bits: int, k: int) -> None:
    """Of each lane's 32 bits, those of one element (16 of tf32: two bits) are where CuTe says."""
    form = Sparsity(bits, k)
    lanes, values = LAYOUTS[bits, k]
    holder, shift = form.holders()
    width = 4 // form.chunk  # bits for each element: 1, or 2 of tf32
    for digits in itertools.product(*(range(size) for size, _ in lanes)):
        lane = digits[0] + 2 * digits[1] + 4 * digits[2] + 32 * digits[3]
        if form.selectors == 2 and digits[1]:
            continue  # the lanes of selector 1
        at = sum(digit * stride for digit, (_, stride) in zip(digits, lanes, strict=True))
        for place, value in enumerate(
            itertools.product(*(range(size) for size, _ in reversed(values)))
        ):
            inner = tuple(reversed(value))
            index = at + sum(v * stride for v, (_, stride) in zip(inner, values, strict=True))
            row, column = index % 64, index // 64
            chunk = column // form.chunk
            assert holder[row % 16, chunk] == lane % 32
            assert shift[row % 16, chunk] == place * width // 4 * 4


@given(st.sampled_from(FORMS), st.integers(0, 2**32 - 1))
def test_compress(form: Sparsity, seed: int) -> None:
    """Kept elements and codes give the matrix back; codes ascend."""
    rng = np.random.default_rng(seed)
    pair = 2 if form.bits == 4 else 1
    matrix = rng.integers(-3, 4, (5, form.k))
    cells = matrix.reshape(5, -1, form.chunk // pair, pair)
    order = rng.permuted(np.broadcast_to(np.arange(cells.shape[2]), cells.shape[:3]), axis=2)
    cells[order >= rng.integers(0, cells.shape[2] // 2 + 1)] = 0
    kept, codes = form.compress(matrix)
    assert kept.shape == (5, form.k // 2)
    restored = np.zeros_like(cells)
    values = kept.reshape(5, codes.shape[1], -1, pair)
    for row, chunk in np.ndindex(codes.shape):
        code = int(codes[row, chunk])
        if form.bits == 32:
            assert code in (0x4, 0xE)
            places = [int(code == 0xE)]
        else:
            places = [code & 3, code >> 2]
            assert places[0] < places[1]
        for index, place in enumerate(places):
            restored[row, chunk, place] = values[row, chunk, index]
    np.testing.assert_array_equal(restored.reshape(matrix.shape), matrix)


def test_errors() -> None:
    """Dense chunks; selectors that a shape does not have."""
    with pytest.raises(ValueError, match="not zero"):
        Sparsity(8, 32).compress(np.ones((1, 32)))
    # 4 bits: pairs stay together.
    row = np.zeros((1, 64))
    row[0, [0, 2, 4]] = 1
    with pytest.raises(ValueError, match="not zero"):
        Sparsity(4, 64).compress(row)
    with pytest.raises(ValueError, match="selector"):
        Sparsity(8, 64).metadata(np.zeros((16, 16), np.uint8), 1)
