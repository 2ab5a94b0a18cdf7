"""How long a kernel of ``wgmma.sp`` takes, roughly, and the rule that follows from it."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Iterator

from .. import cost
from ..architecture import Architecture
from ..hopper import sizes as fits
from ..hopper.sizes import Schedule
from ..intrinsics import tma, wgmma
from ..problem import Linear
from .layout import OUTPUTS, Sparse24
from .wgmma_plan import SparseSizes, flaw

#: Columns of tiles: rows of x.
_WIDE = (64, 96, 128, 160, 192, 224, 256)
_NARROW = (8, 16, 24, 32, 48)
_SCHEDULES: tuple[Schedule, ...] = ("cooperative", "pingpong")

#: Share of the rate that is left where a consumer waits for its products before it adds.
_PROMOTED = 0.9

#: Cooperating consumers leave the tensor cores idle while they finish a tile.
_COOPERATIVE = 0.98

#: What is hidden behind something slower still costs this share of its time.
_HIDDEN = 0.1

#: Bytes per second that one multiprocessor reads: 64 per cycle.
_READ = 112e9


def every(problem: Linear) -> Iterator[SparseSizes]:
    """Sizes to be filtered by `flaw`, in a fixed order."""
    promotions = (True, False) if problem.activation.startswith("float8") else (True,)
    for sizes in _tiles():
        for promote in promotions:
            for stages in range(2, 9):
                for group in (4, 8, 16):
                    yield dataclasses.replace(sizes, stages=stages, group=group, promote=promote)


def _tiles() -> Iterator[SparseSizes]:
    for rows in (64, 128, 256):
        for columns in (*_NARROW, *_WIDE):
            for schedule in _SCHEDULES:
                for down in (1, 2):
                    yield SparseSizes(rows, columns, 3, schedule, down)
            for split in (2, 4, 8):
                yield SparseSizes(rows, columns, 3, split=split)


def seconds(problem: Linear, architecture: Architecture, rows: int, sizes: SparseSizes) -> float:
    """About how long a launch with so many rows takes."""
    assert isinstance(problem.weight, Sparse24)
    item = problem.weight.item
    tiles = math.ceil(problem.outputs / (sizes.rows * sizes.cluster_rows)) * sizes.cluster_rows
    tiles *= math.ceil(rows / sizes.columns)
    padded = fits.steps(problem) * tma.ROW
    piece = problem.weight.piece_bytes / OUTPUTS / tma.ROW
    loads = sizes.rows * piece + sizes.columns / sizes.cluster_rows
    traffic = rows * problem.inputs * item + problem.outputs * padded * piece
    traffic += rows * problem.outputs * fits.output_bytes(problem)
    work = cost.Work(
        unit="wgmma16" if item == 2 else "wgmma8",
        # Half of the operations are with zeros that nobody multiplies.
        operations=1.0 * tiles * sizes.rows * sizes.columns * padded / item,
        traffic=float(traffic),
        blocks=tiles * sizes.split,
        resident=1,
        in_flight=float(sizes.stages * sizes.stage_bytes),
        efficiency=_efficiency(problem, sizes),
        cached=float(tiles * loads * padded),
    )
    waves = math.ceil(tiles * sizes.split / architecture.multiprocessors)
    reading = waves * loads * padded / sizes.split / _READ
    multiplying = work.operations / cost.RATES[architecture.name].operations[work.unit]
    exchange = 0.0
    if sizes.split > 1:
        exchange = 1e-6 + 2 * sizes.rows * sizes.columns * 4 / _READ
    slowest = max(cost.seconds(architecture, work), reading)
    return slowest + _HIDDEN * (reading + multiplying) + exchange


def _efficiency(problem: Linear, sizes: SparseSizes) -> float:
    """Share of the tensor cores' rate that the operands in shared memory can feed.

    A product of n columns takes n / 2 cycles at full rate and reads 32 bytes of each of its 64 rows
    and 64 of each column, 128 in a cycle.
    """
    fed = sizes.columns / (wgmma.ROWS / 2 + sizes.columns)
    if fits.promotes(problem, sizes):
        fed *= _PROMOTED
    return fed * (_COOPERATIVE if sizes.schedule == "cooperative" else 1.0)


def best(problem: Linear, architecture: Architecture, rows: int) -> SparseSizes | None:
    """The fastest, by the model, of a few good shapes; None where none fits."""
    options = list(_options(problem, architecture, rows))
    if not options:
        return None
    return min(options, key=functools.partial(seconds, problem, architecture, rows))


def _options(problem: Linear, architecture: Architecture, rows: int) -> Iterator[SparseSizes]:
    for sizes in _tiles():
        if sizes.columns >= max(2 * rows, 9) or (sizes.columns < 64 and rows > 128):
            continue
        for stages in range(8, 1, -1):
            filled = dataclasses.replace(sizes, stages=stages)
            if flaw(problem, architecture, filled) is None:
                yield filled
                break
