"""Where a kernel's sizes come from: its rule, a record, or whoever collects what can be tuned."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

from .workload import Workload

#: A tile's numbers in the order of its fields.
Sizes: TypeAlias = tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Variant:
    """A function ready to be measured.

    Attributes:
        function: the PrimFunc.
        arguments: constants as arrays, and types of the others: first what it reads, then what it
            writes; sizes may be symbolic.
        results: how many of them it writes.
        words: whether int32 arguments hold codes, so that any value may stand in them.
    """

    function: Any
    arguments: tuple[Any, ...]
    results: int
    words: bool


@dataclasses.dataclass(frozen=True, eq=False)
class Site:
    """A place in a model where sizes are chosen.

    Attributes:
        workload: what the kernel computes.
        rule: the sizes by rule.
        extents: rows, columns and terms of the sum, as far as they are known; else expressions.
        calls: how many calls the sizes are for.
        layer: the layer's name, or None where only the weights tell.
        weights: the constants that the kernel gets.
        lanes, registers: of the vector unit.
        build: the function with other sizes.
    """

    workload: Workload
    rule: Sizes
    extents: Mapping[str, Any]
    calls: int
    layer: str | None
    weights: tuple[Any, ...]
    lanes: int
    registers: int
    build: Callable[[Sizes], Variant]


class Choices:
    """Sizes by rule; what others do differently, they override."""

    def choose(self, site: Site) -> Sizes:
        """The sizes of the kernel at a site."""
        return site.rule


class Collected(Choices):
    """Keeps the sites by workload, in order, and leaves sizes to the rule."""

    def __init__(self) -> None:
        self.sites: dict[str, list[Site]] = {}

    def choose(self, site: Site) -> Sizes:
        """The rule's."""
        self.sites.setdefault(site.workload.key, []).append(site)
        return site.rule


class Recorded(Choices):
    """Sizes that were measured to be best, where there are any that fit.

    Args:
        sizes: by the workload's key.
        fits: whether a kernel can have these sizes; `space.fits`.
        lost: lines of the records' file that made no sense.

    Attributes:
        tuned: the sites that got recorded sizes.
        count: how many sites there were.
        lost: as given.
    """

    def __init__(
        self, sizes: Mapping[str, Sizes], fits: Callable[[Site, Sizes], bool], lost: int = 0
    ) -> None:
        self._sizes, self._fits = sizes, fits
        self.lost = lost
        self.tuned: list[Site] = []
        self.count = 0

    def choose(self, site: Site) -> Sizes:
        """The record's sizes, or the rule's."""
        self.count += 1
        found = self._sizes.get(site.workload.key)
        if found is None or not self._fits(site, found):
            return site.rule
        self.tuned.append(site)
        return found


def tile_sizes(tile: Any) -> Sizes:
    """A tile, a dataclass or a tuple of integers, as sizes."""
    fields = dataclasses.astuple(tile) if dataclasses.is_dataclass(tile) else tile  # type: ignore[type-var]
    return tuple(int(number) for number in fields)


def tile_of(sizes: Sequence[int], like: Any) -> Any:
    """Sizes as a tile of the same type as another."""
    make: Callable[..., Any] = type(like)
    return make(*sizes) if dataclasses.is_dataclass(like) else make(sizes)
