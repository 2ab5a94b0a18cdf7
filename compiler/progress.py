"""How the road tells what it is doing, without knowing who listens."""

from __future__ import annotations

from collections.abc import Callable
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


def layer_progress(pass_name: str, progress: Progress) -> Callable[[str, int, int], None]:
    """What a pass tells about its layers, as phases with a count: ``quantize_weights: conv1``."""

    def layer(name: str, done: int, total: int) -> None:
        progress.phase(f"{pass_name}: {name}")
        progress.samples(done, total)

    return layer
