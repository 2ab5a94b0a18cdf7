"""How much of a convolution one thread makes where tensor cores do not help."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from .problem import Convolution

#: Sums of a thread; there are as many weights, and the window's row, in registers besides.
_SUMS = 32


@dataclasses.dataclass(frozen=True)
class WindowSizes:
    """A thread's results.

    Attributes:
        channels: neighbours, 1, 2 or 4.
        pixels: neighbours in a row.
        threads: of a block.
    """

    channels: int
    pixels: int
    threads: int = 128


def reads_words(problem: Convolution) -> bool:
    """Whether channels are read by words: all that a thread needs of a pixel are whole words."""
    channels = problem.inputs if problem.is_depthwise else problem.inputs // problem.groups
    return channels * problem.bytes % 4 == 0


def per_word(problem: Convolution) -> int:
    """Channels that are read at a time."""
    return 4 // problem.bytes if reads_words(problem) else 1


def space(problem: Convolution) -> Iterator[WindowSizes]:
    """All sizes that divide the channels."""
    least = per_word(problem) if problem.is_depthwise else 1
    each = problem.outputs // (1 if problem.is_depthwise else problem.groups)
    for channels in (1, 2, 4):
        for pixels in (1, 2, 4, 8):
            if channels % least or each % channels or channels * pixels > _SUMS:
                continue
            yield WindowSizes(channels, pixels)
