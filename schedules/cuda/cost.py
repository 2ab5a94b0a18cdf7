"""How long a kernel takes, roughly: enough to choose among kernels where nothing was measured.

A kernel is as slow as the slowest of its arithmetic and its traffic. Arithmetic waits for the last
wave of blocks; traffic is limited by the bytes on their way (Little's law), so few blocks with
shallow pipelines do not fill the memory. Rates are those of datasheets: nothing here was measured,
and only comparisons mean something.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Literal

from .architecture import Architecture

#: What does a kernel's arithmetic: tensor cores on 16 or 8 bits, through ``mma.sync`` or ``wgmma``;
#: ``vector``: float32 multiply-adds; ``dot``: ``dp4a``.
Unit = Literal["mma16", "mma8", "wgmma16", "wgmma8", "vector", "dot"]


@dataclasses.dataclass(frozen=True)
class Rates:
    """Nominal rates of a generation's usual card.

    Attributes:
        bandwidth: bytes per second between the chip and its memory.
        operations: per second (a multiply-add is two), by unit; a unit it lacks is absent.
        latency: seconds from asking for memory until it is there.
        launch: seconds of a kernel that does nothing.
        block: seconds that a block takes before its first and after its last product.
    """

    bandwidth: float
    operations: dict[Unit, float]
    latency: float = 7e-7
    launch: float = 2e-6
    block: float = 1e-6


#: A100 with 80 GB, L40S, H200. ``mma.sync`` reaches about three quarters of Hopper's peak.
RATES: dict[str, Rates] = {
    "sm_80": Rates(2.0e12, {"mma16": 312e12, "mma8": 624e12, "vector": 19.5e12, "dot": 78e12}),
    "sm_89": Rates(0.864e12, {"mma16": 362e12, "mma8": 733e12, "vector": 91.6e12, "dot": 183e12}),
    "sm_90a": Rates(
        4.8e12,
        {
            "mma16": 742e12,
            "mma8": 1484e12,
            "wgmma16": 990e12,
            "wgmma8": 1979e12,
            "vector": 67e12,
            "dot": 134e12,
        },
    ),
}


@dataclasses.dataclass(frozen=True)
class Work:
    """What a launch does.

    Attributes:
        unit: what its arithmetic runs on.
        operations: with those on padding, over all blocks.
        traffic: bytes read from and written to the GPU's memory.
        blocks: in the grid.
        resident: blocks that fit on a multiprocessor at a time.
        in_flight: bytes that a block keeps on their way.
        efficiency: share of the unit's rate that the inner loop can reach, at most 1.
        cached: bytes read through the second cache, over all blocks.
    """

    unit: Unit
    operations: float
    traffic: float
    blocks: int
    resident: int
    in_flight: float
    efficiency: float = 1.0
    cached: float = 0.0


#: How many times faster the second cache is than the memory.
_CACHE_SPEED = 2.5


def seconds(architecture: Architecture, work: Work) -> float:
    """About how long a launch takes.

    Raises:
        KeyError: the architecture lacks the unit.
    """
    rates = RATES[architecture.name]
    count = architecture.multiprocessors
    waves = math.ceil(work.blocks / (count * work.resident))
    # A multiprocessor shares its rate among its blocks: what counts is how many blocks the busiest
    # one gets.
    busiest = (waves - 1) * work.resident + math.ceil(
        (work.blocks - (waves - 1) * count * work.resident) / count
    )
    per_block = work.operations / work.blocks
    arithmetic = busiest * per_block / (rates.operations[work.unit] / count * work.efficiency)
    flying = min(work.blocks, count * work.resident) * work.in_flight
    bandwidth = min(rates.bandwidth, flying / rates.latency)
    traffic = max(
        work.traffic / bandwidth,
        work.cached / min(rates.bandwidth * _CACHE_SPEED, flying / (rates.latency / 2)),
    )
    return rates.launch + waves * rates.block + max(arithmetic, traffic)
