"""Register tiles: how large, and in which order they cover a product."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tvm import tirx
from tvm.tirx.script import builder as T

from .intrinsics_emit import Extent, constant, index, product

#: Rows times panels of a register tile by the number of registers, best first.
_TILES = {32: ((8, 3), (6, 4)), 16: ((4, 2),)}
#: Rows that pass over a panel before the next panel; a unit of work of a thread.
_CHUNK = 64


def walk_tiles(
    rows: Extent, panels: int, shape: tuple[int, int], tile: Callable[[Any, Any, int, int], None]
) -> None:
    """Call ``tile(row, panel, height, width)`` over all rows and panels, in parallel.

    Rows that do not fill a tile are done one at a time.
    """
    height, width = shape
    width = min(width, panels)
    groups, rest = divmod(panels, width)
    total = groups + (1 if rest else 0)
    known = constant(rows)
    chunks = index(-(-known // _CHUNK)) if known is not None else (rows + (_CHUNK - 1)) // _CHUNK
    with T.parallel(index(0), product([chunks, index(total)])) as unit:
        group = T.Bind(unit // chunks)
        start = T.Bind((unit % chunks) * _CHUNK)
        end = T.Bind(tirx.min(start + _CHUNK, rows))

        def rows_of(panel: Any, panels: int) -> None:
            if known is None or known >= height:
                with T.serial(index(0), (end - start) // height) as i:
                    tile(T.Bind(start + i * height), panel, height, panels)
            if known is None or known % height or _CHUNK % height:
                with T.serial(index(0), (end - start) % height) as i:
                    tile(T.Bind(start + (end - start) // height * height + i), panel, 1, panels)

        if not rest:
            rows_of(T.Bind(group * width), width)
        else:
            with T.If(group < groups):
                with T.Then():
                    rows_of(T.Bind(group * width), width)
                with T.Else():
                    rows_of(index(groups * width), rest)


def choose_tile(registers: int, panels: int) -> tuple[int, int]:
    """Rows and panels of a register tile: the shape that leaves the fewest panels over."""
    return min(_TILES[registers], key=lambda tile: panels % tile[1])
