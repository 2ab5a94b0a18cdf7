"""What attention computes, and how its operands lie in memory."""

from __future__ import annotations

import dataclasses
from typing import Any

from ..architecture import Architecture

#: Bytes that one asynchronous copy moves: heads must be whole copies.
_COPY = 16


@dataclasses.dataclass(frozen=True)
class Mask:
    """float32 numbers added to the scores [batch, heads, rows, columns]; axes may have one element.

    Attributes:
        batch, heads, rows: whether the mask has an element for each, or one for all.
    """

    batch: bool
    heads: bool
    rows: bool


@dataclasses.dataclass(frozen=True)
class Attention:
    """``softmax(scale · q kᵀ + mask) v`` for each batch and head.

    Batch, rows (of q) and columns (of k and v) are known at run time only. An operand lies as
    [batch, tokens, heads, size], or [batch, heads, tokens, size] where `heads_first` says so.

    Attributes:
        heads: how many.
        size: elements of a head of q and k.
        value_size: of v and the result.
        scale: what scores are multiplied by.
        dtype: of q, k, v and the result: ``float16`` or ``bfloat16``; sums and softmax are float32.
        mask: what is added to the scores, or None.
        heads_first: of q, k, v and the result.
        shared: heads of q that read one head of k and v (grouped-query attention); k and v have
            ``heads / shared`` heads.
    """

    heads: int
    size: int
    value_size: int
    scale: float
    dtype: str
    mask: Mask | None = None
    heads_first: tuple[bool, bool, bool, bool] = (False, False, False, False)
    shared: int = 1

    def shape(self, place: int, batch: Any, tokens: Any) -> tuple[Any, ...]:
        """Shape of operand `place` (q, k, v, result)."""
        size = self.value_size if place > 1 else self.size
        heads = self.heads // self.shared if place in (1, 2) else self.heads
        if self.heads_first[place]:
            return (batch, heads, tokens, size)
        return (batch, tokens, heads, size)

    @property
    def key(self) -> str:
        """Text that equal problems share."""
        return repr(self)


def refusal(problem: Attention, architecture: Architecture) -> str | None:
    """Why there is no kernel, or None where there is one."""
    del architecture
    if problem.dtype not in ("float16", "bfloat16"):
        return f"tensor cores do not multiply {problem.dtype}"
    if problem.heads % problem.shared:
        return f"{problem.heads} heads are no groups of {problem.shared}"
    for size in (problem.size, problem.value_size):
        if size * 2 % _COPY:
            return f"a head of {size} elements is no multiple of {_COPY} bytes"
        if size > 256:
            return f"a head of {size} elements does not fit the registers"
    return None
