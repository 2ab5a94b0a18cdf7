"""Packers that order values for tensor cores themselves do it as the manual's maps say."""

from __future__ import annotations

import numpy as np
import pytest
from fewbits.schedules.cuda.intrinsics.fragments import mma_a
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
