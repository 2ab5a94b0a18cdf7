"""How long a kernel of given sizes takes, roughly, and the rule that follows from it."""

from __future__ import annotations

import dataclasses
import functools
import math

from .. import cost
from ..architecture import Architecture
from ..intrinsics import tma, wgmma
from ..problem import Linear
from . import sizes as fits
from .sizes import Sizes, flaw

#: (rows, columns) of tiles that are worth a try for many rows of x, both schedules.
_WIDE = ((128, 256), (256, 128), (128, 192), (128, 128), (64, 256), (64, 192), (64, 128), (64, 64))

#: Columns of tiles for few rows of x, which are then the columns.
_NARROW = (8, 16, 32, 64, 128)

#: Share of the peak that products reach where nothing else limits them: with promotion, a
#: consumer waits for its products before it adds.
_PROMOTED = 0.9

#: Cooperating consumers leave the tensor cores idle while they finish a tile.
_COOPERATIVE = 0.98

#: What is hidden behind something slower still costs this share of its time.
_HIDDEN = 0.1

#: Bytes per second that one multiprocessor reads: 64 per cycle.
_READ = 112e9


def seconds(problem: Linear, architecture: Architecture, rows: int, sizes: Sizes) -> float:
    """About how long a launch with so many rows takes."""
    item = wgmma.Kind(problem.activation, problem.activation).item
    down, across = (problem.outputs, rows) if sizes.swap else (rows, problem.outputs)
    tiles = math.ceil(down / (sizes.rows * sizes.cluster_rows)) * sizes.cluster_rows
    tiles *= math.ceil(across / (sizes.columns * sizes.cluster_columns)) * sizes.cluster_columns
    padded = fits.steps(problem) * tma.ROW // item
    loads = sizes.rows / sizes.cluster_columns + sizes.columns / sizes.cluster_rows
    traffic = (rows + problem.outputs) * problem.inputs * item
    traffic += rows * problem.outputs * fits.output_bytes(problem)
    work = cost.Work(
        unit="wgmma16" if item == 2 else "wgmma8",
        operations=2.0 * tiles * sizes.rows * sizes.columns * padded,
        traffic=float(traffic),
        blocks=tiles * sizes.split,
        resident=1,
        in_flight=float(sizes.stages * sizes.stage_bytes),
        efficiency=_efficiency(problem, sizes),
        cached=float(tiles * loads * padded * item),
    )
    waves = math.ceil(tiles * sizes.split / architecture.multiprocessors)
    reading = waves * loads * padded * item / sizes.split / _READ
    multiplying = work.operations / cost.RATES[architecture.name].operations[work.unit]
    exchange = 0.0
    if sizes.split > 1:
        exchange = 1e-6 + 2 * sizes.rows * sizes.columns * 4 / _READ
    slowest = max(cost.seconds(architecture, work), reading)
    return slowest + _HIDDEN * (reading + multiplying) + exchange


def _efficiency(problem: Linear, sizes: Sizes) -> float:
    """Share of the tensor cores' rate that the operands in shared memory can feed.

    A product of n columns takes n / 2 cycles at full rate and reads 32 bytes of each of its 64 + n
    rows, of which 128 come in a cycle.
    """
    fed = min(1.0, 2 * sizes.columns / (wgmma.ROWS + sizes.columns))
    if fits.promotes(problem, sizes):
        fed *= _PROMOTED
    return fed * (_COOPERATIVE if sizes.schedule == "cooperative" else 1.0)


def best(problem: Linear, architecture: Architecture, rows: int) -> Sizes | None:
    """The fastest, by the model, of a few good shapes; None where none fits."""
    options = [sizes for sizes in _options(problem, architecture, rows)]
    if not options:
        return None
    return min(options, key=functools.partial(seconds, problem, architecture, rows))


def _options(problem: Linear, architecture: Architecture, rows: int) -> list[Sizes]:
    found: list[Sizes] = []
    for rows_of_tile, columns in _WIDE:
        for base in (
            Sizes(rows_of_tile, columns, 0, "pingpong"),
            Sizes(rows_of_tile, columns, 0, "pingpong", 2, 1),
            Sizes(rows_of_tile, columns, 0),
            Sizes(rows_of_tile, columns, 0, "cooperative", 2, 1),
            *(Sizes(rows_of_tile, columns, 0, split=split) for split in (2, 4, 8)),
        ):
            found.append(base)
    for columns in _NARROW:
        if columns < max(2 * rows, 9) and rows <= 128:
            for split in (1, 2, 4, 8):
                for rows_of_tile in (64, 128):
                    found.append(Sizes(rows_of_tile, columns, 0, split=split, swap=True))
    fitting = (_with_stages(problem, architecture, sizes) for sizes in found)
    return [sizes for sizes in fitting if sizes is not None]


def _with_stages(problem: Linear, architecture: Architecture, sizes: Sizes) -> Sizes | None:
    """The sizes with as many stages as fit, up to seven."""
    for stages in range(7, 1, -1):
        filled = dataclasses.replace(sizes, stages=stages)
        if flaw(problem, architecture, filled) is None:
            return filled
    return None
