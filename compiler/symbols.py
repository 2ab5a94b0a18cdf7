"""Symbolic dimensions of an interface, by name: which sizes arrays give them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from ..errors import FewbitsError

#: Size of a symbolic dimension where samples have to be made from nothing.
TYPICAL_SIZE = 16


class Shaped(Protocol):
    """An input: its name, and its sizes, symbolic ones by name."""

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def shape(self) -> tuple[Any, ...]: ...  # noqa: D102
    @property
    def dtype(self) -> str: ...  # noqa: D102


@dataclasses.dataclass(frozen=True)
class Info:
    """An input with a shape without symbols."""

    name: str
    shape: tuple[int, ...]
    dtype: str


def batch_of(ports: Sequence[Shaped]) -> str | None:
    """The symbolic dimension that is the first of every input: the batch; or None."""
    firsts = {port.shape[0] if port.shape else None for port in ports}
    only = next(iter(firsts)) if len(firsts) == 1 else None
    return only if isinstance(only, str) else None


def has_symbols(ports: Sequence[Shaped]) -> bool:
    """Whether any size is symbolic."""
    return any(isinstance(size, str) for port in ports for size in port.shape)


def sizes_of(ports: Sequence[Shaped], arrays: Mapping[str, Any], where: str) -> dict[str, int]:
    """The sizes that arrays give to the symbolic dimensions, the batch excepted.

    Arrays may have an axis of samples in front, or lack the batch axis. Those that are missing or
    of another rank say nothing; whoever checks them complains.

    Raises:
        FewbitsError: ``wrong-shape`` where two inputs contradict each other, or a size is 0.
    """
    batch = batch_of(ports)
    sizes: dict[str, int] = {}
    for port in ports:
        shape = np.shape(arrays.get(port.name, ()))
        extra = len(port.shape) - len(shape)
        if abs(extra) > 1 or port.name not in arrays:
            continue
        # Sizes are counted from the end: only in front may an axis be missing or added.
        pairs = list(zip(reversed(port.shape), reversed(shape), strict=False))
        for name, size in pairs:
            if not isinstance(name, str) or name == batch:
                continue
            if sizes.setdefault(name, size) != size or not size:
                raise FewbitsError(
                    "wrong-shape",
                    f"dimension {name!r} is {size} here but {sizes[name]} in another input"
                    if size
                    else f"dimension {name!r} is 0",
                    where=f"{where}, input {port.name!r}",
                    hint="a dimension has one size in all inputs, at least 1",
                )
    return sizes


def concrete(ports: Sequence[Shaped], sizes: Mapping[str, int] | None = None) -> list[Info]:
    """The inputs with numbers in place of symbols: 1 for the batch, else what `sizes` says.

    Symbols that `sizes` does not know become `TYPICAL_SIZE`.
    """
    batch = batch_of(ports)
    known = sizes or {}
    return [
        Info(
            port.name,
            tuple(
                1 if size == batch else known.get(size, TYPICAL_SIZE)
                if isinstance(size, str) else size
                for size in port.shape
            ),
            port.dtype,
        )
        for port in ports
    ]  # fmt: skip
