"""How the road tells what it is doing, without knowing who listens."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Listens to a compilation."""

    def phase(self, name: str) -> None:
        """A phase or pass begins."""

    def samples(self, done: int, total: int | None = None) -> None:
        """So many steps of the present phase are done, of so many."""


class Quiet:
    """Listens to nothing."""

    def phase(self, name: str) -> None:
        """Nothing."""

    def samples(self, done: int, total: int | None = None) -> None:
        """Nothing."""


quiet: Progress = Quiet()
