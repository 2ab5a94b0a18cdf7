"""How many registers a kernel needs: virtual ones share a slot when they are never alive together.

PTX names thousands of registers; with fewer slots, a warp's registers stay in the processor's
cache. The analysis is that of one thread, which suffices: every lane has its own copy of each slot,
and lanes that do not take part are never written. A result never takes the slot of an operand that
ends at the same operation, because operations may write one lane before they read the next.
"""

from __future__ import annotations

import dataclasses
import heapq
from collections import defaultdict

from .code import CONSTANT, NO_PC, Operation, operations

_RESERVED = 2
_ENDS = ("exit", "trap", "unsupported")


@dataclasses.dataclass(frozen=True)
class Peak:
    """Slots of a kernel, and the most 32-bit registers that are alive at once."""

    slots: int
    live: int


@dataclasses.dataclass
class _Use:
    """The virtual registers of one operation."""

    places: list[int]
    reads: set[int]
    writes: set[int]


def allocate(code: list[Operation], widths: dict[int, int]) -> Peak:
    """Renumbers the slots of a kernel's operations in place.

    Args:
        code: with virtual registers as slots.
        widths: 1 or 2 slots, for each virtual register.
    """
    uses = [_use(operation) for operation in code]
    first: dict[int, int] = {}
    last: dict[int, int] = {}

    def extend(register: int, place: int) -> None:
        first[register] = min(first.get(register, place), place)
        last[register] = max(last.get(register, place), place)

    for start, end, alive_in, alive_out in _blocks(code, uses):
        for register in alive_in:
            extend(register, start)
        for register in alive_out:
            extend(register, end)
        for place in range(start, end + 1):
            for register in uses[place].reads | uses[place].writes:
                extend(register, place)
    slots, peak = _assign(first, last, widths)
    for operation, use in zip(code, uses, strict=True):
        for place in use.places:
            operation.operands[place] = slots[operation.operands[place]]
    return peak


def _use(operation: Operation) -> _Use:
    signature = operations()[operation.name][1]
    found = _Use([], set(), set())
    at = place = 0
    star = 0
    while place < len(operation.operands) and at < len(signature):
        kind = signature[at]
        ref = operation.operands[place]
        repeated = signature[at + 1 : at + 2] == "*"
        if kind.lower() in "tswqdmn" and not ref & CONSTANT and ref >= _RESERVED:
            found.places.append(place)
            written = kind.isupper()
            if repeated and operation.results >= 0:
                written = star < operation.results
            # What a guard may leave as it was is alive before.
            if not written or operation.guard != NO_PC or operation.name == "wgmma":
                found.reads.add(ref)
            if written:
                found.writes.add(ref)
        star += repeated
        place += 2 if kind in "mn" else 1
        if not repeated:
            at += 1
    return found


def _successors(code: list[Operation]) -> list[list[int]]:
    after_calls: dict[int, list[int]] = defaultdict(list)
    for place, operation in enumerate(code):
        if operation.name == "call":
            after_calls[operation.operands[1]].append(place + 1)
    found: list[list[int]] = []
    for place, operation in enumerate(code):
        always = operation.guard == NO_PC
        name = operation.name
        if name == "bra":
            targets = [operation.operands[0]]
        elif name == "brx":
            targets, always = operation.operands[1:], False
        elif name == "call":
            targets = [operation.operands[0]]
        elif name == "ret":
            targets = after_calls[operation.operands[0]]
        elif name in _ENDS:
            targets = []
        else:
            targets, always = [place + 1], True
        if not always:
            targets = [*targets, place + 1]
        found.append([target for target in targets if target < len(code)])
    return found


def _blocks(code: list[Operation], uses: list[_Use]) -> list[tuple[int, int, list[int], list[int]]]:
    """Basic blocks: first and last operation, and what is alive before and after."""
    successors = _successors(code)
    leaders = {0}
    for place, targets in enumerate(successors):
        if targets != [place + 1]:
            leaders.update(targets)
            leaders.add(place + 1)
    starts = sorted(leader for leader in leaders if leader < len(code))
    ends = [start - 1 for start in starts[1:]] + [len(code) - 1]
    number = {start: n for n, start in enumerate(starts)}
    needs, makes = [], []
    for start, end in zip(starts, ends, strict=True):
        need = make = 0
        for place in range(end, start - 1, -1):
            write = sum(1 << register for register in uses[place].writes)
            read = sum(1 << register for register in uses[place].reads)
            need = need & ~write | read
            make |= write
        needs.append(need)
        makes.append(make)
    before, after = list(needs), [0] * len(starts)
    changed = True
    while changed:
        changed = False
        for n in range(len(starts) - 1, -1, -1):
            out = 0
            for target in successors[ends[n]]:
                out |= before[number[target]]
            into = needs[n] | out & ~makes[n]
            if out != after[n] or into != before[n]:
                after[n], before[n], changed = out, into, True
    return [
        (start, end, _members(before[n]), _members(after[n]))
        for n, (start, end) in enumerate(zip(starts, ends, strict=True))
    ]


def _members(bits: int) -> list[int]:
    found: list[int] = []
    while bits:
        low = bits & -bits
        found.append(low.bit_length() - 1)
        bits ^= low
    return found


def _assign(
    first: dict[int, int], last: dict[int, int], widths: dict[int, int]
) -> tuple[dict[int, int], Peak]:
    """A linear scan over the registers by their first use."""
    slots: dict[int, int] = {}
    busy: list[tuple[int, int]] = []
    free: dict[int, list[int]] = {1: [], 2: []}
    top, live, peak = _RESERVED, 0, 0
    for register in sorted(first, key=lambda name: (first[name], name)):
        while busy and busy[0][0] < first[register]:
            _, ended = heapq.heappop(busy)
            heapq.heappush(free[widths[ended]], slots[ended])
            live -= widths[ended]
        width = widths[register]
        if not free[width] and width == 1 and free[2]:
            pair = heapq.heappop(free[2])
            free[1] += [pair, pair + 1]
            heapq.heapify(free[1])
        if free[width]:
            slots[register] = heapq.heappop(free[width])
        else:
            slots[register] = top
            top += width
        heapq.heappush(busy, (last[register], register))
        live += width
        peak = max(peak, live)
    return slots, Peak(top, peak)
