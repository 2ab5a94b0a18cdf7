"""Which sizes are worth trying: all that fit the registers, the most promising first.

A tile of `rows` rows and `width` vectors takes rows · width accumulators, the vectors of one step,
and a broadcast element. Its inner loop loads rows + width times for rows · width products, and what
a matrix has beyond whole tiles is computed for nothing or slower: the model that orders candidates
knows these two, and measurement decides.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ...ops.symbolic import evaluate, symbols
from .choices import Site, Sizes

_MOST_ROWS = 14
_MOST_WIDTH = 6
#: Products that have to be under way so that none waits for the one before.
_UNDER_WAY = 8
#: Blocks of rows, in multiples of the rule's; 0: all rows at once.
_BLOCKS = (1.0, 0.5, 2.0, 0.0)


def fits(site: Site, sizes: Sequence[int]) -> bool:
    """Whether a kernel with these sizes stays in the registers and can be built."""
    if len(sizes) != len(site.rule):
        return False
    rows, width, *blocks = sizes
    if not 1 <= rows <= _MOST_ROWS or not 1 <= width <= _MOST_WIDTH:
        return False
    if rows * width + width + 1 > site.registers:
        return False
    return all(block % rows == 0 for block in blocks)


def candidates(site: Site, bindings: Sequence[Mapping[str, int]], limit: int) -> list[Sizes]:
    """The sizes to try, the rule's first, then the best by the model.

    Args:
        site: where they are chosen.
        bindings: the sizes of symbolic dimensions that count.
        limit: how many at most, at least 1.
    """
    extents = [bound(site.extents, binding) for binding in bindings]
    found: dict[Sizes, float] = {}
    for rows in range(1, _MOST_ROWS + 1):
        for width in range(1, _MOST_WIDTH + 1):
            cost = sum(_cost(rows, width, extent, site.lanes) for extent in extents)
            for sizes, factor in _with_blocks(rows, width, site, extents):
                if fits(site, sizes):
                    found[sizes] = cost * factor
    found.pop(site.rule, None)
    ordered = sorted(found, key=lambda sizes: (found[sizes], sizes))
    return [site.rule, *ordered][: max(limit, 1)]


def bound(extents: Mapping[str, Any], binding: Mapping[str, int]) -> dict[str, int]:
    """Extents as numbers; those that nobody knows are left out."""
    sizes = {symbol: binding[symbol.name] for symbol in symbols(extents.values())}
    return {k: int(evaluate(v, sizes)) for k, v in extents.items() if v is not None}


def _cost(rows: int, width: int, extent: Mapping[str, int], lanes: int) -> float:
    """Time per product, relative."""
    loads = 1 + 0.5 * (rows + width) / (rows * width)
    waits = max(1.0, _UNDER_WAY / (rows * width)) ** 0.5
    high = extent.get("rows", rows)
    wide = -(-extent.get("columns", width * lanes) // lanes)
    spare_rows = 1 + (high % rows) / high * 0.5 if high >= rows else rows / max(high, 1)
    spare_columns = -(-wide // width) * width / wide
    return loads * waits * spare_rows * spare_columns


def _with_blocks(
    rows: int, width: int, site: Site, extents: Sequence[Mapping[str, int]]
) -> list[tuple[Sizes, float]]:
    """The sizes with each block, and what the model thinks of it."""
    if len(site.rule) == 2:
        return [((rows, width), 1.0)]
    most = max(extent.get("rows", 1) for extent in extents)
    result: dict[Sizes, float] = {}
    for number, share in enumerate(_BLOCKS):
        block = max(int(site.rule[2] * share) if share else most, 1)
        if number and block >= most and site.rule[2] >= most:
            continue  # one block, like the rule's
        result.setdefault((rows, width, -(-block // rows) * rows), 1.0 + 0.03 * number)
    return list(result.items())
