"""Places every buffer of a program in one arena, and checks the whole against a device.

The plan is made when the model is compiled: the firmware has no allocator. Buffers share memory
when they are never live together, when a call may write over its input (in place), or when it may
write a little below it (`KernelCall.overlap`), so that along a chain of layers the data walks
downwards through the arena.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Protocol

from ...errors import FewbitsError
from .liveness import Liveness, analyze
from .ordering import least_peak_order
from .packing import Problem, pack
from .program import Program


@dataclasses.dataclass(frozen=True)
class MemoryPlan:
    """Where everything lies in the arena; all figures in bytes.

    Attributes:
        offsets: offset of every buffer by name, aliases included.
        scratch: offset of each call's scratch memory, None where it needs none.
        arena_bytes: size of the arena.
        live_bytes: for each call, the bytes of the arena in use while it runs, scratch included.
        lower_bound: no plan for this order of calls can be smaller.
        optimal: no smaller plan for this order exists.
        peak_call: index of the call with the most live bytes, None in a program without calls.
        peak_layer: the name of its layer, for messages.
    """

    offsets: dict[str, int]
    scratch: tuple[int | None, ...]
    arena_bytes: int
    live_bytes: tuple[int, ...]
    lower_bound: int
    optimal: bool
    peak_call: int | None
    peak_layer: str | None


class Device(Protocol):
    """What `check_budget` wants to know of a board or part."""

    @property
    def name(self) -> str:
        """As users write it."""
        ...

    @property
    def ram(self) -> int:
        """Bytes of RAM."""
        ...

    @property
    def flash(self) -> int:
        """Bytes of flash."""
        ...


def plan(program: Program) -> MemoryPlan:
    """Places the buffers of `program`, calls in their present order.

    Model inputs are live from the start, model outputs to the end, a call's scratch memory while
    it runs. Offsets are multiples of 4 (8 for int64 and scratch).

    Raises:
        ValueError: the program is malformed.
    """
    liveness = analyze(program)
    calls = tuple(range(len(program.calls)))
    lifetimes = [liveness.interval(index) for index in range(len(liveness.blocks))]
    bound = liveness.peak_bytes(calls)
    gaps, exact = _distances(liveness, lifetimes)
    packing = pack(
        Problem(
            sizes=[block.size for block in liveness.blocks],
            alignments=[block.alignment for block in liveness.blocks],
            lifetimes=lifetimes,
            gaps=gaps,
            exact=exact,
            bound=bound,
        )
    )
    live = tuple(
        _union(
            (offset, block.size)
            for offset, block, (first, last) in zip(
                packing.offsets, liveness.blocks, lifetimes, strict=True
            )
            if first <= call <= last
        )
        for call in calls
    )
    peak = max(calls, key=lambda call: (live[call], -call), default=None)
    return MemoryPlan(
        offsets={name: packing.offsets[index] for name, index in liveness.block_of.items()},
        scratch=tuple(
            None if index is None else packing.offsets[index] for index in liveness.scratch_of
        ),
        arena_bytes=packing.total,
        live_bytes=live,
        lower_bound=bound,
        optimal=packing.optimal,
        peak_call=peak,
        peak_layer=None if peak is None else program.calls[peak].layer,
    )


def reorder(program: Program) -> Program:
    """The program with its calls in the order that needs the smallest arena.

    Programs that gain nothing come back unchanged.
    """
    order = least_peak_order(analyze(program))
    if order == tuple(range(len(program.calls))):
        return program
    candidate = dataclasses.replace(program, calls=tuple(program.calls[call] for call in order))
    return min((program, candidate), key=lambda p: plan(p).arena_bytes)


def check_budget(
    plan: MemoryPlan,
    *,
    flash_bytes: int,
    static_ram_bytes: int = 0,
    ram: int | None = None,
    flash: int | None = None,
    devices: Sequence[Device] = (),
) -> None:
    """Refuses a model that does not fit.

    Args:
        plan: gives the arena and the layer at its peak.
        flash_bytes: code, constants and initial values.
        static_ram_bytes: RAM beside the arena (stack, data) that the budget must also hold.
        ram: the budget in bytes, None for no limit.
        flash: the budget in bytes, None for no limit.
        devices: boards that the hint may name.

    Raises:
        FewbitsError: ``over-budget``, with how much is missing, the layer at the peak and what
            would fit.
    """
    ram_bytes = plan.arena_bytes + static_ram_bytes
    excess: list[str] = []
    if ram is not None and ram_bytes > ram:
        beside = f" and {static_ram_bytes:,} beside it" if static_ram_bytes else ""
        excess.append(
            f"it needs {ram_bytes:,} bytes of RAM (arena {plan.arena_bytes:,}{beside}), "
            f"{ram_bytes - ram:,} more than the {ram:,} there are"
        )
    over_ram = bool(excess)
    if flash is not None and flash_bytes > flash:
        excess.append(
            f"it needs {flash_bytes:,} bytes of flash, "
            f"{flash_bytes - flash:,} more than the {flash:,} there are"
        )
    if not excess:
        return
    where = None
    if over_ram and plan.peak_call is not None:
        where = (
            f"layer {plan.peak_layer!r} is the peak of RAM: "
            f"{plan.live_bytes[plan.peak_call]:,} bytes live"
        )
    fitting = sorted(
        (d for d in devices if d.ram >= ram_bytes and d.flash >= flash_bytes),
        key=lambda d: (d.ram, d.flash, d.name),
    )
    if fitting:
        hint = "it fits " + ", ".join(
            f"{d.name} ({d.ram // 1024} KB RAM, {d.flash // 1024} KB flash)" for d in fitting[:3]
        )
    elif devices:
        largest = max(devices, key=lambda d: (d.ram, d.flash, d.name))
        hint = (
            f"no known board holds it; the largest is {largest.name} with "
            f"{largest.ram // 1024} KB RAM and {largest.flash // 1024} KB flash"
        )
    else:
        hint = f"a device with {ram_bytes:,} bytes of RAM and {flash_bytes:,} of flash would do"
    raise FewbitsError(
        "over-budget", "the model does not fit: " + "; ".join(excess), where=where, hint=hint
    )


def _distances(
    liveness: Liveness, lifetimes: Sequence[tuple[int, int]]
) -> tuple[list[dict[int, int]], list[dict[int, int]]]:
    """The distances that pairs of blocks must keep: `packing.Problem`'s `gaps` and `exact`."""
    sizes = [block.size for block in liveness.blocks]
    gaps: list[dict[int, int]] = [{} for _ in sizes]
    exact: list[dict[int, int]] = [{} for _ in sizes]
    for a, (first_a, last_a) in enumerate(lifetimes):
        for b, (first_b, last_b) in enumerate(lifetimes[:a]):
            together = max(first_a, first_b) <= min(last_a, last_b)
            if together and sizes[a] and sizes[b]:
                gaps[a][b], gaps[b][a] = sizes[a], sizes[b]
    for call, pairs in enumerate(liveness.shares):
        for (output, source), distance in pairs.items():
            consecutive = lifetimes[output][0] == call == lifetimes[source][1]
            if not consecutive or source not in gaps[output]:
                continue
            if call in liveness.exact:
                exact[output][source], exact[source][output] = distance, -distance
            else:
                gaps[output][source] = min(distance, gaps[output][source])
    return gaps, exact


def _union(pieces: Iterable[tuple[int, int]]) -> int:
    """Bytes covered by pieces of memory given as (offset, size)."""
    covered, end = 0, 0
    for offset, size in sorted(pieces):
        covered += max(0, offset + size - max(end, offset))
        end = max(end, offset + size)
    return covered
