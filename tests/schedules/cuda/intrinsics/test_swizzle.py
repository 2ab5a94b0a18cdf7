"""Swizzles and matrix descriptors against the manual's examples and CuTe's definition."""

from __future__ import annotations

import numpy as np
import pytest
from fewbits.schedules.cuda.intrinsics.swizzle import Descriptor, swizzle


@pytest.mark.parametrize(("span", "bits"), [(16, 0), (32, 1), (64, 2), (128, 3)])
def test_is_cutes_swizzle(span: int, bits: int) -> None:
    """Swizzle<bits, 4, 3>: bits 4 and up are XORed with those three higher; its own inverse."""
    address = np.arange(4096)
    mask = ((1 << bits) - 1) << 7
    np.testing.assert_array_equal(swizzle(address, span), address ^ ((address & mask) >> 3))
    np.testing.assert_array_equal(swizzle(swizzle(address, span), span), address)
    assert (swizzle(address, span) // max(span, 16) == address // max(span, 16)).all()


@pytest.mark.parametrize("span", [32, 64, 128])
def test_a_column_of_chunks_touches_all_banks(span: int) -> None:
    """Eight rows' chunks at one place of k lie in eight different sets of four banks."""
    where = Descriptor(0, 16, 8 * span, span).addresses(8, span, 1)
    for column in range(0, span, 16):
        assert np.unique(where[:, column] % 128).size == 8


def test_fields() -> None:
    """Section "Matrix Descriptor Format"."""
    found = Descriptor(0x12340, 0x210, 0x400, 64, base=5).encode()
    assert found & 0x3FFF == 0x1234
    assert found >> 16 & 0x3FFF == 0x21
    assert found >> 32 & 0x3FFF == 0x40
    assert found >> 49 & 7 == 5
    assert found >> 62 == 2
    assert [Descriptor(0, 0, 0, span).encode() >> 62 for span in (16, 128, 64, 32)] == [0, 1, 2, 3]


def _offset(coordinate: int, shape: tuple[int, ...], stride: tuple[int, ...]) -> int:
    total = 0
    for size, step in zip(shape, stride, strict=True):
        total += coordinate % size * step
        coordinate //= size
    return total


@pytest.mark.parametrize(
    ("where", "rows", "k", "element", "mn", "span", "shapes", "strides"),
    [
        # The manual's examples, layouts as it prints them (strides in elements).
        (
            Descriptor(0, 256, 128, 16),
            16,
            16,
            4,
            False,
            16,
            ((8, 2), (4, 4)),
            ((4, 32), (1, 64)),
        ),
        (Descriptor(0, 16, 256, 32), 16, 16, 4, False, 32, ((8, 2), (4, 4)), ((8, 64), (1, 4))),
        (
            Descriptor(0, 256, 128, 16),
            16,
            16,
            2,
            True,
            16,
            ((8, 1, 2), (8, 2)),
            ((1, 8, 64), (8, 128)),
        ),
        (
            Descriptor(0, 256, 512, 32),
            32,
            16,
            2,
            True,
            32,
            ((8, 2, 2), (8, 2)),
            ((1, 8, 128), (16, 256)),
        ),
        (
            Descriptor(0, 512, 1024, 64),
            64,
            16,
            2,
            True,
            64,
            ((8, 4, 2), (8, 2)),
            ((1, 8, 256), (32, 512)),
        ),
    ],
)
def test_canonical_layouts(
    where: Descriptor,
    rows: int,
    k: int,
    element: int,
    mn: bool,
    span: int,
    shapes: tuple[tuple[int, ...], tuple[int, ...]],
    strides: tuple[tuple[int, ...], tuple[int, ...]],
) -> None:
    """Section "Canonical Layouts", examples with their LBO and SBO."""
    if not mn and span == 32:
        k = 8  # of the manual's 16 columns, those that one row of the swizzle holds
    found = where.addresses(rows, k, element, mn)
    for row, column in np.ndindex(rows, k):
        offset = _offset(row, shapes[0], strides[0]) + _offset(column, shapes[1], strides[1])
        assert found[row, column] == swizzle(offset * element, span)


def test_base_moves_the_pattern() -> None:
    """A pattern that starts at row 2 looks there as one that starts at a kilobyte."""
    moved = Descriptor(256, 16, 1024, base=2).addresses(8, 64, 2)
    aligned = Descriptor(0, 16, 1024).addresses(8, 64, 2)
    np.testing.assert_array_equal(moved - 256, aligned)
