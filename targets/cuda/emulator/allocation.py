"""How many registers a kernel needs: virtual ones share a slot when they are never alive together.

Fewer slots keep a warp's registers in the processor's cache. The analysis is that of one thread,
which suffices: every lane has its own copy of each slot, and inactive lanes are never written.
"""

from __future__ import annotations

import dataclasses

from .code import CONSTANT, Operation


@dataclasses.dataclass(frozen=True)
class Peak:
    """Slots of a kernel, and an estimate of the registers a compiler would use."""

    slots: int
    live: int


def allocate(code: list[Operation]) -> Peak:
    """Renumbers the slots of a kernel's operations in place."""
    top = 2
    for operation in code:
        for ref, width in _slots(operation):
            top = max(top, ref + width)
    return Peak(top + 2, min(255, max(16, top // 4)))


def _slots(operation: Operation) -> list[tuple[int, int]]:
    from .code import operations

    found: list[tuple[int, int]] = []
    signature = operations()[operation.name][1]
    at = place = 0
    while place < len(operation.operands) and at < len(signature):
        kind = signature[at].lower()
        ref = operation.operands[place]
        if kind in "tswqdmn" and not ref & CONSTANT:
            found.append((ref, 2))
        place += 2 if kind in "mn" else 1
        if signature[at + 1 : at + 2] != "*":
            at += 1
    return found
