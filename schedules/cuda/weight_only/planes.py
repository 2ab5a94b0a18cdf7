"""Where the bits of a weight lie: codes in the order in which tensor cores want them.

A *tile* is 16 outputs by 16 inputs, what one ``mma.m16n8k16`` takes as its A operand: each of 32
lanes holds four registers of two values. A *chunk* is four tiles that follow each other along the
inputs, so a lane holds 16 *pairs* of codes of it: pair ``4·tile + register``. The first code of a
pair is stored in the lower half of a 32-bit word, the second at the same place of the upper half,
so that one mask takes both out at once.

Widths that are no power of two are split into planes of 1, 2, 4 or 8 bits, each a stream of its
own: every weight takes exactly its bits. Where in a half-word each pair lies is chosen so that few
shifts bring the pieces of one pair side by side.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt

#: Outputs, and inputs, of a tile.
TILE = 16
#: Inputs of a chunk.
CHUNK = 64
#: Pairs of codes of a chunk that one lane holds.
PAIRS = 16
LANES = 32

Words = npt.NDArray[np.uint32]
Codes = npt.NDArray[np.uint8]


@dataclasses.dataclass(frozen=True)
class Plane:
    """Some bits of every code.

    Attributes:
        width: how many bits: 1, 2, 4 or 8.
        low: which bit of the code is the plane's lowest.
        places: of each pair: the word of the lane's share of a chunk, and the lowest bit in its
            half.
        apart: bits between the two codes of a pair: 16, but where look-ups want neighbours.
    """

    width: int
    low: int
    places: tuple[tuple[int, int], ...]
    apart: int = 16

    @property
    def words(self) -> int:
        """32-bit words that a lane has of a chunk."""
        return self.width

    @property
    def vector(self) -> int:
        """Words that a lane loads at a time."""
        return min(self.width, 4)


def _in_order(width: int, low: int) -> Plane:
    """A plane with pairs one after the other."""
    count = 16 // width
    return Plane(width, low, tuple((p // count, width * (p % count)) for p in range(PAIRS)))


def _spread(low: int, step: int, offsets: tuple[int, ...]) -> Plane:
    """One bit a code: neighbouring registers `step` bits apart, groups of them at `offsets`."""
    size = PAIRS // len(offsets)
    return Plane(1, low, tuple((0, step * (p % size) + offsets[p // size]) for p in range(PAIRS)))


def _two_bits_over_four() -> Plane:
    offsets = (0, 2, 8, 10)
    return Plane(2, 4, tuple((p // 8, 4 * (p % 2) + offsets[p % 8 // 2]) for p in range(PAIRS)))


_PLANES: dict[int, tuple[Plane, ...]] = {
    2: (_in_order(2, 0),),
    3: (_spread(0, 2, (0, 1, 8, 9)), _in_order(2, 1)),
    4: (_in_order(4, 0),),
    5: (_spread(0, 4, (0, 1, 2, 3, 8, 9, 10, 11)), _in_order(4, 1)),
    6: (_in_order(4, 0), _two_bits_over_four()),
    7: (_in_order(4, 0), _two_bits_over_four(), _spread(6, 2, (0, 1, 8, 9))),
    8: (_in_order(8, 0),),
}
#: Codes of a pair are neighbours, as byte permutations want their selectors.
_NEIGHBOURS = (Plane(4, 0, tuple((p // 4, 8 * (p % 4)) for p in range(PAIRS)), apart=4),)


def planes_of(bits: int, neighbours: bool = False) -> tuple[Plane, ...]:
    """The planes of codes of 2 to 8 bits.

    Args:
        bits: of a code.
        neighbours: the two codes of a pair lie side by side; 4 bits only.
    """
    return _NEIGHBOURS if neighbours else _PLANES[bits]


def padded(outputs: int, inputs: int) -> tuple[int, int]:
    """Outputs and inputs as stored."""
    return -(-outputs // TILE) * TILE, -(-inputs // CHUNK) * CHUNK


def pack_plane(plane: Plane, codes: Codes) -> Words:
    """A plane of codes [outputs, inputs], multiples of a tile and a chunk, as a flat stream.

    Words lie by tile of outputs, chunk, vector, lane, and place in the vector.
    """
    shares = _shares(codes)
    pieces = (shares >> np.uint8(plane.low)) & np.uint8((1 << plane.width) - 1)
    words = np.zeros((*shares.shape[:3], plane.words), np.uint32)
    for pair, (word, place) in enumerate(plane.places):
        for second in range(2):
            shift = np.uint32(place + plane.apart * second)
            words[..., word] |= pieces[..., pair, second].astype(np.uint32) << shift
    vectors = words.reshape(*shares.shape[:3], plane.words // plane.vector, plane.vector)
    return np.ascontiguousarray(vectors.transpose(0, 1, 3, 2, 4)).reshape(-1)


def unpack_plane(plane: Plane, words: Words, outputs: int, inputs: int) -> Codes:
    """The plane's bits of the codes [outputs, inputs], at their place in the code."""
    tiles, chunks = outputs // TILE, inputs // CHUNK
    vectors = words.reshape(tiles, chunks, plane.words // plane.vector, LANES, plane.vector)
    lanes = vectors.transpose(0, 1, 3, 2, 4).reshape(tiles, chunks, LANES, plane.words)
    shares = np.zeros((tiles, chunks, LANES, PAIRS, 2), np.uint8)
    for pair, (word, place) in enumerate(plane.places):
        for second in range(2):
            piece = lanes[..., word] >> np.uint32(place + plane.apart * second)
            piece = piece & np.uint32((1 << plane.width) - 1)
            shares[..., pair, second] = piece.astype(np.uint8) << np.uint8(plane.low)
    split = shares.reshape(tiles, chunks, 8, 4, 4, 2, 2, 2)
    # [tile, chunk, row % 8, column % 8 // 2, tile of chunk, column // 8, row // 8, column % 2]
    return split.transpose(0, 6, 2, 1, 4, 5, 3, 7).reshape(outputs, inputs)


def _shares(codes: Codes) -> Codes:
    """Codes as the lanes hold them: [tiles, chunks, lanes, pairs, 2] (PTX's m16n8k16, A)."""
    outputs, inputs = codes.shape
    tiles, chunks = outputs // TILE, inputs // CHUNK
    split = codes.reshape(tiles, 2, 8, chunks, 4, 2, 4, 2)
    return split.transpose(0, 3, 2, 6, 4, 5, 1, 7).reshape(tiles, chunks, LANES, PAIRS, 2)
