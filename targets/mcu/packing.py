"""Places blocks of memory so that the whole is as small as possible.

Every pair of blocks that is live at the same time must keep a distance, and which distance depends
on which of the two is lower: a block above another of ten bytes starts at least ten bytes after
it, but a block that may be overwritten from below needs less. This is the disjunctive scheduling
problem; the order of the blocks by address decides everything, because putting each block in turn
at the lowest free place reproduces an optimal packing when the order is right. So the search is
over orders: a few good guesses, then improvement by small changes, then branch and bound, each
with a limit on steps so that the answer is the same on every machine.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Mapping, Sequence

IMPROVEMENT_WORK = 400_000
"""Pair comparisons that local search may spend."""
PATIENCE = 30
"""Steps a block that local search goes on for without finding a smaller packing."""
BRANCH_WORK = 600_000
"""Pair comparisons that branch and bound may spend."""


@dataclasses.dataclass(frozen=True)
class Problem:
    """Blocks to place.

    Attributes:
        sizes: bytes of each block.
        alignments: alignment of each block in bytes.
        lifetimes: first and last moment at which each block is needed.
        gaps: for blocks a and b that are live together, ``gaps[a][b]`` is the least
            ``offset[b] - offset[a]`` when a is the lower one. Both directions are present.
        exact: for pairs that may overlap at one distance only, ``exact[a][b]`` is the
            ``offset[b] - offset[a]`` at which they may, whatever `gaps` says; both directions.
        bound: bytes that no packing can go under.
    """

    sizes: Sequence[int]
    alignments: Sequence[int]
    lifetimes: Sequence[tuple[int, int]]
    gaps: Sequence[Mapping[int, int]]
    exact: Sequence[Mapping[int, int]]
    bound: int


@dataclasses.dataclass(frozen=True)
class Packing:
    """Offsets of all blocks, the bytes they take, and whether fewer are known to be impossible."""

    offsets: tuple[int, ...]
    total: int
    optimal: bool


def pack(problem: Problem) -> Packing:
    """The smallest packing found; the same in every run."""
    best: tuple[int, list[int], list[int]] | None = None
    for order in _guesses(problem):
        offsets = _place(problem, order)
        total = _total(problem, offsets)
        if best is None or total < best[0]:
            best = (total, offsets, order)
    if best is None:
        return Packing((), 0, True)
    total, offsets, order = best
    if total > problem.bound:
        total, offsets = _improve(problem, order, offsets)
    complete = False
    if total > problem.bound:
        total, offsets, complete = _branch_and_bound(problem, total, offsets)
    return Packing(tuple(offsets), total, complete or total <= problem.bound)


def _guesses(problem: Problem) -> list[list[int]]:
    """Orders worth trying. Backwards in time comes first: in a chain of layers each output starts
    a little under its input, so the last output belongs at the bottom."""
    blocks = range(len(problem.sizes))
    size, life = problem.sizes, problem.lifetimes

    def span(b: int) -> int:
        return life[b][1] - life[b][0] + 1

    return [
        sorted(blocks, key=lambda b: (-life[b][1], -life[b][0], -size[b], b)),
        sorted(blocks, key=lambda b: (-life[b][0], -life[b][1], -size[b], b)),
        sorted(blocks, key=lambda b: (-size[b], -life[b][0], b)),
        sorted(blocks, key=lambda b: (-size[b], life[b][0], b)),
        sorted(blocks, key=lambda b: (-size[b] * span(b), -life[b][0], b)),
        sorted(blocks, key=lambda b: (-span(b), -size[b], -life[b][0], b)),
        sorted(blocks, key=lambda b: (life[b][0], -size[b], b)),
        sorted(blocks, key=lambda b: (life[b][0], -life[b][1], -size[b], b)),
    ]


def _total(problem: Problem, offsets: Sequence[int]) -> int:
    return max((o + s for o, s in zip(offsets, problem.sizes, strict=True)), default=0)


def _lowest(problem: Problem, block: int, offsets: Sequence[int]) -> int:
    """The lowest place for `block` beside the blocks whose offset is not negative."""
    forbidden: list[tuple[int, int]] = []  # open intervals
    for other, gap in problem.gaps[block].items():
        offset = offsets[other]
        if offset < 0:
            continue
        low, high = offset - gap, offset + problem.gaps[other][block]
        if other in problem.exact[block]:
            allowed = offset - problem.exact[block][other]
            forbidden.append((low, allowed))
            low = allowed
        forbidden.append((low, high))
    alignment = problem.alignments[block]
    place = 0
    for low, high in sorted(forbidden):
        if low < place < high:
            place = -(-high // alignment) * alignment
    return place


def _place(problem: Problem, order: Sequence[int]) -> list[int]:
    offsets = [-1] * len(problem.sizes)
    for block in order:
        offsets[block] = _lowest(problem, block, offsets)
    return offsets


def _improve(
    problem: Problem, order: Sequence[int], offsets: Sequence[int]
) -> tuple[int, list[int]]:
    """Local search: move a block that reaches the top, or one of its neighbours, to an earlier
    place in the order, or swap two; keep what is not worse."""
    generator = random.Random(0)
    count = len(order)
    cost_of_step = count + sum(map(len, problem.gaps))
    current, current_offsets = list(order), list(offsets)
    best_total, best = _total(problem, offsets), list(offsets)
    current_cost = (best_total, sum(offsets))
    last_success = 0
    for step in range(IMPROVEMENT_WORK // max(1, cost_of_step)):
        if step - last_success > PATIENCE * count:
            break
        top = [b for b in current if current_offsets[b] + problem.sizes[b] == current_cost[0]]
        block = generator.choice(top)
        if problem.gaps[block] and generator.random() < 0.5:
            block = generator.choice(sorted(problem.gaps[block]))
        trial = list(current)
        position = trial.index(block)
        if generator.random() < 0.5:
            trial.insert(generator.randrange(count), trial.pop(position))
        else:
            other = generator.randrange(count)
            trial[position], trial[other] = trial[other], trial[position]
        placed = _place(problem, trial)
        cost = (_total(problem, placed), sum(placed))
        if cost <= current_cost:
            current, current_offsets, current_cost = trial, placed, cost
            if cost[0] < best_total:
                best_total, best, last_success = cost[0], placed, step
                if best_total <= problem.bound:
                    break
    return best_total, best


def _branch_and_bound(
    problem: Problem, total: int, offsets: Sequence[int]
) -> tuple[int, list[int], bool]:
    """Tries orders until none is left or the work is spent; True where none was left.

    Only orders that place blocks at offsets that do not decrease need to be tried: sorting a
    packing by its own offsets and placing again never raises a block. (At equal offsets the later
    block of an in-place pair counts as the lower one.) That does not hold of pairs that overlap at
    one distance only, so with them nothing is proved.
    """
    blocks = list(range(len(problem.sizes)))
    rank = {b: r for r, b in enumerate(sorted(blocks, key=lambda b: (-problem.lifetimes[b][0], b)))}
    best_total, best = total, list(offsets)
    placed = [-1] * len(blocks)
    work = BRANCH_WORK

    def descend(floor: tuple[int, int], left: list[int]) -> None:
        nonlocal best_total, best, work
        if not left:
            best_total, best = _total(problem, placed), list(placed)
            return
        candidates: list[tuple[int, int, int]] = []
        for block in left:
            work -= 1 + len(problem.gaps[block])
            place = _lowest(problem, block, placed)
            if place + problem.sizes[block] >= best_total:
                return
            candidates.append((place, -problem.sizes[block], block))
        candidates.sort()
        for place, _, block in candidates:
            if work <= 0 or best_total <= problem.bound:
                return
            if (place, rank[block]) < floor:
                continue
            if place + problem.sizes[block] >= best_total:
                return
            placed[block] = place
            descend((place, rank[block]), [b for b in left if b != block])
            placed[block] = -1

    descend((0, -1), blocks)
    return best_total, best, work > 0 and not any(problem.exact)
