"""The sizes of a kernel without tensor cores."""

from __future__ import annotations

import dataclasses

from ..problem import Linear


@dataclasses.dataclass(frozen=True)
class Sizes:
    """A block's tile and a thread's share of it.

    Attributes:
        rows: of the results that a block makes.
        columns: of them.
        depth: of a step: elements along K, or words of four int8 where `packed`.
        thread_rows: rows of a thread's results.
        thread_columns: columns of them.
    """

    rows: int
    columns: int
    depth: int
    thread_rows: int
    thread_columns: int

    @property
    def threads(self) -> int:
        """Threads of a block."""
        return (self.rows // self.thread_rows) * (self.columns // self.thread_columns)


def packed(problem: Linear) -> bool:
    """Whether four int8 are read as one word and multiplied by ``dp4a``.

    Rows start at multiples of four bytes only where K is one.
    """
    return problem.activation == "int8" and problem.inputs % 4 == 0
