"""The register maps: one place for each element, and places that the manual's figures show."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from fewbits.schedules.cuda.intrinsics.fragments import (
    Fragment,
    ldmatrix,
    mma_a,
    mma_b,
    mma_sum,
    wgmma_a,
    wgmma_sum,
)

A_SHAPES = [(32, 4), (32, 8), (16, 8), (16, 16), (8, 16), (8, 32), (4, 32), (4, 64), (1, 128)]
FRAGMENTS: dict[str, Fragment] = {
    **{f"a{bits}k{k}": mma_a(bits, k) for bits, k in [*A_SHAPES, (1, 256), (64, 4), (64, 16)]},
    **{f"b{bits}k{k}": mma_b(bits, k) for bits, k in [*A_SHAPES, (1, 256), (64, 16), (8, 64)]},
    **{f"a{bits}m8": mma_a(bits, 128 // bits, 8) for bits in (8, 4, 1)},
    **{f"sum{bits}m{rows}": mma_sum(bits, rows) for bits in (16, 32, 64) for rows in (8, 16)},
    **{f"wgmma{bits}": wgmma_a(bits) for bits in (32, 16, 8, 1)},
    **{f"wgmma{n}x{bits}": wgmma_sum(n, bits) for n in (8, 40, 256) for bits in (16, 32)},
    **{f"ldmatrix{n}{t}": ldmatrix(n, t) for n in (1, 2, 4) for t in (False, True)},
}


@pytest.mark.parametrize("name", FRAGMENTS)
def test_every_element_has_one_place(name: str) -> None:
    """The map is one to one onto the matrix, and `place` is its inverse."""
    form = FRAGMENTS[name]
    rows, columns = form.shape
    assert form.row.size == rows * columns
    assert np.unique(form.row * columns + form.column).size == rows * columns
    row, column = np.indices(form.shape)
    lane, register, part = form.place(row, column)
    np.testing.assert_array_equal(form.row[lane, register, part], row)
    np.testing.assert_array_equal(form.column[lane, register, part], column)


@pytest.mark.parametrize("name", FRAGMENTS)
def test_pack_and_back(name: str) -> None:
    """unpack(pack(x)) is x, in registers of the right number."""
    form = FRAGMENTS[name]
    rng = np.random.default_rng(3)
    matrix = rng.integers(0, 2**63, form.shape, dtype=np.uint64) & np.uint64((1 << form.bits) - 1)
    registers = form.pack(matrix)
    assert registers.shape == (form.registers, form.lanes)
    assert registers.dtype == np.uint32
    assert form.registers * form.lanes * 32 == matrix.size * form.bits
    np.testing.assert_array_equal(form.unpack(registers), matrix)
    # Negative numbers are their two's complement.
    np.testing.assert_array_equal(form.pack(-matrix.astype(np.int64)), form.pack(-matrix))
    with pytest.raises(ValueError, match="a matrix"):
        form.pack(matrix.T[:1])


@pytest.mark.parametrize(
    ("form", "lane", "register", "part", "row", "column"),
    [
        # Read off the manual's figures: T<lane>: {elements}.
        (mma_a(16, 16), 5, 0, 1, 1, 3),
        (mma_a(16, 16), 5, 1, 0, 9, 2),
        (mma_a(16, 16), 5, 2, 0, 1, 10),
        (mma_a(8, 32), 31, 3, 3, 15, 31),
        (mma_a(8, 32), 6, 2, 1, 1, 25),
        (mma_a(4, 64), 2, 1, 7, 8, 23),
        (mma_a(1, 256), 9, 2, 5, 2, 165),
        (mma_a(32, 8), 7, 1, 0, 9, 3),
        (mma_b(8, 32), 6, 1, 2, 26, 1),
        (mma_b(16, 16), 13, 1, 0, 10, 3),
        (mma_sum(), 30, 3, 0, 15, 5),
        (mma_sum(16), 30, 1, 1, 15, 5),
        (wgmma_a(8), 97, 1, 2, 56, 6),
        (wgmma_sum(256), 65, 127, 0, 40, 251),
        (wgmma_sum(64, 16), 33, 3, 1, 24, 11),
        (ldmatrix(4), 11, 2, 1, 18, 7),
        (ldmatrix(4, True), 11, 2, 1, 23, 2),
    ],
)
def test_figures(
    form: Fragment, lane: int, register: int, part: int, row: int, column: int
) -> None:
    """Single elements."""
    assert form.row[lane, register, part] == row
    assert form.column[lane, register, part] == column


def test_accumulator_as_cutlass_states_it() -> None:
    """CuTe's CLayout_64xN: ((4, 8, 4), (2, 2, N/8)) : ((128, 1, 16), (64, 8, 512))."""
    form = wgmma_sum(72)
    for t0, t1, t2, v0, v1, v2 in itertools.product(*map(range, (4, 8, 4, 2, 2, 9))):
        index = 128 * t0 + t1 + 16 * t2 + 64 * v0 + 8 * v1 + 512 * v2  # column-major in 64 rows
        lane, register = t0 + 4 * t1 + 32 * t2, v0 + 2 * v1 + 4 * v2
        assert (form.row[lane, register, 0], form.column[lane, register, 0]) == (
            index % 64,
            index // 64,
        )


def test_operand_as_cutlass_states_it() -> None:
    """CuTe's ALayout_64x32 of 8 bits: ((4, 8, 4), (4, 2, 2)) : ((256, 1, 16), (64, 8, 1024))."""
    form = wgmma_a(8)
    for t0, t1, t2, v0, v1, v2 in itertools.product(*map(range, (4, 8, 4, 4, 2, 2))):
        index = 256 * t0 + t1 + 16 * t2 + 64 * v0 + 8 * v1 + 1024 * v2
        lane, register = t0 + 4 * t1 + 32 * t2, v1 + 2 * v2
        assert (form.row[lane, register, v0], form.column[lane, register, v0]) == (
            index % 64,
            index // 64,
        )


def test_what_no_instruction_has() -> None:
    """Shapes outside of the manual's list."""
    for arguments in ((8, 64), (16, 4), (4, 16)):
        with pytest.raises(KeyError):
            mma_a(*arguments)
    with pytest.raises(KeyError):
        mma_a(8, 32, 8)
