"""Which layers a weight-compressing pass takes, and which of them get options of their own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

from tvm import ir

from ..layers import Layer, find_layers, select_layers


class Selects(Protocol):
    """The options of a pass that choose layers."""

    @property
    def embeddings(self) -> bool: ...  # noqa: D102
    @property
    def targets(self) -> tuple[str, ...]: ...  # noqa: D102
    @property
    def ignore(self) -> tuple[str, ...]: ...  # noqa: D102


def layers_to_compress(module: ir.IRModule, options: Selects, pass_name: str) -> list[Layer]:
    """The float layers that are selected, in program order.

    Tables that are looked up in are among them where `embeddings` or `targets` ask for them.

    Raises:
        FewbitsError: ``unknown-layer`` for an entry that matches nothing.
    """
    layers = [layer for layer in find_layers(module) if layer.tensor is None]
    if not options.embeddings and not options.targets:
        layers = [layer for layer in layers if layer.kind != "embedding"]
    return select_layers(layers, options.targets, options.ignore, pass_name)


def select_overridden(
    layers: Sequence[Layer], overrides: Mapping[str, Mapping[str, Any]] | None, pass_name: str
) -> Iterator[tuple[Layer, str, Mapping[str, Any]]]:
    """Each layer that an entry selects, with the entry and what it changes, in order.

    Raises:
        FewbitsError: ``unknown-layer`` for an entry that matches nothing.
    """
    for pattern, changes in (overrides or {}).items():
        for layer in select_layers(layers, [pattern], pass_name=pass_name):
            yield layer, pattern, changes
