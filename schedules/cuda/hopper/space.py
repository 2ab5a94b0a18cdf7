"""All sizes there are, fitting or not."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from ..problem import Linear
from .sizes import Schedule, Sizes

_COLUMNS = (64, 96, 128, 160, 192, 224, 256)
_NARROW = (8, 16, 24, 32, 48, 64, 96, 128)
_CLUSTERS = ((1, 1), (2, 1), (1, 2))
_SCHEDULES: tuple[Schedule, ...] = ("cooperative", "pingpong")


def every(problem: Linear) -> Iterator[Sizes]:
    """Sizes to be filtered by `flaw`, in a fixed order."""
    for sizes in _tiles():
        for stages in range(2, 8):
            for group in (4, 8, 16):
                yield dataclasses.replace(sizes, stages=stages, group=group)
    if problem.activation.startswith("float8"):
        for sizes in _tiles():
            for stages in range(2, 8):
                for group in (4, 8, 16):
                    yield dataclasses.replace(sizes, stages=stages, group=group, promote=False)


def _tiles() -> Iterator[Sizes]:
    for swap, all_columns in ((False, _COLUMNS), (True, _NARROW)):
        for rows in (64, 128, 256):
            for columns in all_columns:
                for schedule in _SCHEDULES:
                    for down, across in _CLUSTERS:
                        yield Sizes(rows, columns, 3, schedule, down, across, swap=swap)
                for split in (2, 4, 8):
                    yield Sizes(rows, columns, 3, split=split, swap=swap)
