"""Values of a long forward pass that memory has no room for wait in temporary files.

A sweep over a model keeps every calibration sample at one place of the program. What is needed
last waits in files that are mapped into memory: computing with them needs no further code, and
the system takes their pages back when memory is short. A file has no name, so nothing is left
behind whatever happens.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from tvm import relax

from ..ops.evaluate import Environment


class Spill:
    """Keeps what environments hold in memory under a budget.

    Attributes:
        budget: bytes.
        written: bytes that went to files so far.
    """

    def __init__(self, budget: int, folder: str | Path | None = None) -> None:
        """`folder` holds the files; the system's folder for temporary files by default."""
        self.budget = budget
        self.written = 0
        self._folder = None if folder is None else str(folder)

    def balance(
        self, environments: Iterable[Environment], needed: Callable[[relax.Var], int]
    ) -> None:
        """Move values out, the last needed first, until the rest fits.

        Args:
            environments: all that are under way.
            needed: when a variable's value is read next; any number that grows with time.
        """
        environments = list(environments)
        resident = {
            storage.data_ptr(): storage.nbytes()
            for environment in environments
            for value in environment.values.values()
            for storage in _in_memory(value)
        }
        over = sum(resident.values()) - self.budget
        if over <= 0:
            return
        waiting = [
            (needed(var), number, var)
            for number, environment in enumerate(environments)
            for var in environment.values
        ]
        for _, number, var in sorted(waiting, key=lambda entry: entry[:2], reverse=True):
            if over <= 0:
                break
            values = environments[number].values
            storages = list(_in_memory(values[var]))
            if not storages:
                continue
            values[var] = self._move(values[var])
            # Views share memory, which is free only when the last of them has moved.
            still = {
                storage.data_ptr() for value in values.values() for storage in _in_memory(value)
            }
            over -= sum(s.nbytes() for s in storages if s.data_ptr() not in still)

    def _move(self, value: Any) -> Any:
        if isinstance(value, tuple):
            return tuple(self._move(part) for part in value)
        if not isinstance(value, torch.Tensor) or not value.numel():
            return value
        with tempfile.NamedTemporaryFile(dir=self._folder, prefix="fewbits-") as file:
            # The mapping outlives the name.
            mapped = torch.from_file(
                file.name, shared=True, size=value.numel(), dtype=value.dtype
            ).reshape(value.shape)
        mapped.copy_(value)
        self.written += mapped.nbytes
        return mapped


def on_device(value: Any, device: str) -> Any:
    """The value where it is computed with; mapped files are on the CPU."""
    if isinstance(value, tuple):
        return tuple(on_device(part, device) for part in value)
    return value.to(device) if isinstance(value, torch.Tensor) else value


def _in_memory(value: Any) -> Iterator[torch.UntypedStorage]:
    """The storages behind a value that are not mapped files."""
    if isinstance(value, tuple):
        for part in value:
            yield from _in_memory(part)
    elif isinstance(value, torch.Tensor) and value.numel():
        storage = value.untyped_storage()
        if storage.filename is None:
            yield storage
