"""Elements between the lanes of vectors: transposing squares, and reducing one vector."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tvm import tirx
from tvm.tirx.script import builder as T

from .intrinsics_emit import index


def shuffled(vectors: Sequence[Any], places: Sequence[int]) -> Any:
    """The elements at some places of the vectors laid end to end."""
    return tirx.Shuffle(list(vectors), [index(place) for place in places])


def transposed(rows: Sequence[Any]) -> list[Any]:
    """The columns of a square: as many vectors as each has lanes, a power of two.

    log2(lanes) times, pairs of vectors exchange half of their elements.
    """
    lanes = len(rows)
    square = list(rows)
    distance = 1
    while distance < lanes:
        following = list(square)
        for i in range(lanes):
            if i & distance:
                continue
            pair = (square[i], square[i | distance])
            first = [lanes + (n ^ distance) if n & distance else n for n in range(lanes)]
            second = [lanes + n if n & distance else n | distance for n in range(lanes)]
            following[i] = T.Bind(shuffled(pair, first))
            following[i | distance] = T.Bind(shuffled(pair, second))
        square = following
        distance *= 2
    return square


def across(vector: Any, combine: Callable[[Any, Any], Any]) -> Any:
    """All elements of a vector combined, a scalar; the upper half meets the lower, and so on."""
    _, _, lanes = str(vector.ty.dtype).partition("x")
    count = int(lanes)
    while count > 2:
        count //= 2
        lower = shuffled([vector], list(range(count)))
        vector = T.Bind(combine(lower, shuffled([vector], list(range(count, 2 * count)))))
    return combine(shuffled([vector], [0]), shuffled([vector], [1]))
