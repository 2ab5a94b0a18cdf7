"""Chooses kernels by records: those of the very card first, then of any of its architecture."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ..architecture import Architecture
from ..dispatch import Choice
from ..problem import Linear
from ..template import Template
from .records import Record, bucket_of
from .sizes import sizes_from


class Recorded:
    """A `dispatch.Chooser`.

    Args:
        records: later ones hold where several are for one place.
        card: the GPU's name where it is known; its own records come first.
        lost: lines of the files that made no sense.

    Attributes:
        lost: as given, and records that name a template or sizes that there are not.
        asked, answered: numbers of products that kernels were asked for, and of those that got a
            measured kernel for some number of rows.
    """

    def __init__(self, records: Iterable[Record], card: str | None = None, lost: int = 0) -> None:
        self.lost = lost
        self._asked: set[tuple[str, str]] = set()
        self._answered: set[tuple[str, str]] = set()
        self._records: dict[tuple[str, str, int], Record] = {}
        for record in records:
            if record.emulated and record.card != card:
                continue
            place = record.problem, record.architecture, record.bucket
            old = self._records.get(place)
            if old is None or old.card != card or record.card == card:
                self._records[place] = record
        self._refused: set[tuple[str, str, int]] = set()

    @property
    def asked(self) -> int:
        """How many products there were."""
        return len(self._asked)

    @property
    def answered(self) -> int:
        """How many of them have a measured kernel."""
        return len(self._answered)

    def choose(
        self, problem: Linear, architecture: Architecture, rows: int, options: Sequence[Template]
    ) -> Choice | None:
        """The record's kernel, if its template still has it; None leaves it to the cost models."""
        product = problem.key, architecture.name
        self._asked.add(product)
        place = *product, bucket_of(rows)
        record = self._records.get(place)
        if record is None:
            return None
        template = next((t for t in options if t.name == record.template), None)
        sizes = None
        if template is not None:
            sizes = sizes_from(template, problem, architecture, record.sizes)
        if template is None or sizes is None:
            if place not in self._refused:
                self._refused.add(place)
                self.lost += 1
            return None
        self._answered.add(product)
        return Choice(template, sizes, record.seconds, measured=True)
