"""Whoever states an order of values for tensor cores, states what the manual's maps say."""

from __future__ import annotations

import numpy as np
import pytest
from fewbits.schedules.cuda.intrinsics import mma_tensorize
from fewbits.schedules.cuda.intrinsics.fragments import mma_a, mma_b, mma_sum
from fewbits.schedules.cuda.intrinsics.mma import KINDS, Kind
from fewbits.schedules.cuda.weight_only.planes import CHUNK, TILE, pack_plane, planes_of


@pytest.mark.parametrize("bits", range(2, 9))
@pytest.mark.parametrize("axis", [0, 1])
def test_weights_of_few_bits(bits: int, axis: int) -> None:
    """A lane's pair `4 tile + register` has the two elements of that register of A of m16n8k16.

    Rows, then columns, are written bit by bit into all of a plane's bits, and found in the words.
    """
    form = mma_a(16, TILE)
    index = np.indices((TILE, CHUNK))[axis]
    for plane in planes_of(bits):
        full = (1 << plane.width) - 1
        for bit in range(6):
            codes = ((index >> bit & 1) * full << plane.low).astype(np.uint8)
            stream = pack_plane(plane, codes).reshape(-1, 32, plane.vector)
            words = stream.transpose(1, 0, 2).reshape(32, plane.words)
            for pair, (word, place) in enumerate(plane.places):
                tile, register = divmod(pair, form.registers)
                for part in range(2):
                    found = words[:, word] >> np.uint32(place + plane.apart * part) & full
                    row, column = form.row[:, register, part], form.column[:, register, part]
                    expected = row if axis == 0 else column + TILE * tile
                    np.testing.assert_array_equal(found, (expected >> bit & 1) * full)


@pytest.mark.parametrize("kind", KINDS.values(), ids=lambda kind: kind.dtype)
def test_tensorized_tiles(kind: Kind) -> None:
    """Tiles of 16 x 16 are two products side by side: a lane's elements, register by register."""
    k = mma_tensorize.terms(kind)
    a, b, total = mma_a(8 * kind.bytes, k), mma_b(8 * kind.bytes, k), mma_sum()
    row, term = np.indices((16, k))
    lane, register, part = a.place(row, term)
    found = mma_tensorize.left_place(kind, row, term)
    np.testing.assert_array_equal(found, (lane, register * a.parts + part))
    lane, register, part = b.place(term, row % 8)
    found = mma_tensorize.right_place(kind, row, term)
    second = row // 8 * b.registers
    np.testing.assert_array_equal(found, (lane, (second + register) * b.parts + part))
    row, column = np.indices((16, 16))
    lane, register, _ = total.place(row, column % 8)
    found = mma_tensorize.sum_place(row, column)
    np.testing.assert_array_equal(found, (lane, register + column // 8 * total.registers))
