"""Chooses the order of calls that needs the least memory.

Where a graph has branches, calls may run in many orders, and the peak of live memory differs: it
pays to finish a branch that shrinks before starting one that grows. The search walks over sets of
finished calls. How much memory is live depends only on the set, so the smallest possible peak is a
shortest-path problem in which the length of a path is its largest step. Graphs with too many such
sets get a greedy order: whichever call leaves the least memory live comes next.
"""

from __future__ import annotations

import functools
import heapq

from .liveness import Liveness

STATE_LIMIT = 5_000
"""Sets of finished calls that the search may visit before it gives up for a greedy order."""


def dependencies(liveness: Liveness) -> list[int]:
    """For each call, the calls that must run before it, as a bit set."""
    before = [0] * len(liveness.touched)
    for block in liveness.blocks:
        for call in range(len(before)):
            earlier = (1 << call) - 1
            if block.writers >> call & 1:
                before[call] |= block.uses & earlier
            elif block.readers >> call & 1:
                before[call] |= block.writers & earlier
    return before


def least_peak_order(liveness: Liveness) -> tuple[int, ...]:
    """An order of the calls whose peak (`Liveness.peak_bytes`) is smallest.

    The given order is kept when none is better. In graphs with too many orders to search, the
    better one of the given and a greedy order.
    """
    count = len(liveness.touched)
    given = tuple(range(count))
    before = dependencies(liveness)
    if all(before[call] >> (call - 1) & 1 for call in range(1, count)):
        return given  # a chain has one order
    goal = (1 << count) - 1
    reached: dict[int, tuple[int, int]] = {}  # set of calls -> (set before it, last call)
    queue: list[tuple[int, int, int, int, int]] = [(0, 0, 0, 0, -1)]
    while queue:
        peak, left, done, previous, last = heapq.heappop(queue)
        if done in reached:
            continue
        reached[done] = (previous, last)
        if done == goal:
            return _path(reached, goal) if peak < liveness.peak_bytes(given) else given
        if len(reached) > STATE_LIMIT:
            return min(given, _greedy(liveness, before), key=liveness.peak_bytes)
        for call in range(count):
            if not done >> call & 1 and before[call] & ~done == 0:
                following = done | 1 << call
                if following not in reached:
                    cost = max(peak, liveness.call_bytes(done, call))
                    heapq.heappush(queue, (cost, left - 1, following, done, call))
    return given


def _greedy(liveness: Liveness, before: list[int]) -> tuple[int, ...]:
    order: list[int] = []
    done = 0
    while len(order) < len(before):
        ready = [c for c, b in enumerate(before) if not done >> c & 1 and b & ~done == 0]
        call = min(ready, key=functools.partial(_cost, liveness, done))
        order.append(call)
        done |= 1 << call
    return tuple(order)


def _cost(liveness: Liveness, done: int, call: int) -> tuple[int, int]:
    return liveness.live_bytes(done | 1 << call), call


def _path(reached: dict[int, tuple[int, int]], goal: int) -> tuple[int, ...]:
    calls: list[int] = []
    while goal:
        goal, last = reached[goal]
        calls.append(last)
    return tuple(reversed(calls))
