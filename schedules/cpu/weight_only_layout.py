"""Where the bits of a few-bit weight lie, so that kernels read whole vectors.

Outputs are the lanes of vectors, `lanes` of them a panel. Each output's codes along the sum are one
stream of bits, low bits first, filled up to whole 32-bit words; word w of a panel is a vector with
the w-th word of every output. A chunk is the shortest run of codes that ends on a word. Scales and
zero points lie likewise, one vector per group. The layout adds less than a word per output to the
format's exact bits, and the outputs that fill up the last panel.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from ...formats.packing import pack

Words = npt.NDArray[np.int32]


def chunk_of(bits: int) -> int:
    """Codes of the shortest run that ends on a 32-bit word."""
    return 32 // math.gcd(bits, 32)


def words_of(count: int, bits: int) -> int:
    """Words that hold `count` codes."""
    return -(-count * bits // 32)


def into_panels(rows: np.ndarray, lanes: int) -> np.ndarray:
    """``[O, n]`` as ``[panels, n, lanes]``, zeros for outputs that are not there."""
    outputs, length = rows.shape
    panels = -(-outputs // lanes)
    padded = np.zeros((panels * lanes, length), rows.dtype)
    padded[:outputs] = rows
    return np.ascontiguousarray(padded.reshape(panels, lanes, length).transpose(0, 2, 1))


def pack_streams(codes: npt.NDArray[np.uint8], bits: int, lanes: int) -> Words:
    """Codes ``[O, n]`` as words ``[panels, words_of(n), lanes]``."""
    outputs, length = codes.shape
    words = words_of(length, bits)
    # A row of whole words holds whole chunks, so rows can be packed together.
    room = -(-length // chunk_of(bits)) * chunk_of(bits)
    padded = np.zeros((outputs, room), np.uint8)
    padded[:, :length] = codes
    rows = pack(padded, bits).view("<i4").reshape(outputs, words_of(room, bits))
    return into_panels(rows[:, :words], lanes)


def pack_planes(codes: npt.NDArray[np.uint8], bits: int, lanes: int) -> Words:
    """Binary codes ``[O, n]`` as signs ``[panels, words_of(n, 1) * bits, lanes]``, 1 for minus.

    Each word has 32 values of one plane; the planes' words of the same values follow each other.
    """
    one = np.uint8(1)
    signs = [(~(codes >> np.uint8(i)) & one).astype(np.uint8) for i in range(bits)]
    planes = [pack_streams(plane, 1, lanes) for plane in signs]
    stacked = np.stack(planes, axis=2)
    return np.ascontiguousarray(stacked.reshape(stacked.shape[0], -1, lanes))
