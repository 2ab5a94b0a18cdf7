"""What passes about activations need to know of them: maxima per channel, and a fair sample.

Both are streamed: the memory is the sample's, whatever the calibration set's size.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from tvm import ir

from ..formats.affine import AffineFormat
from .calibration import Calibration
from .layers import Layer
from .observers import Observer


class ChannelStatistics(Observer):
    """The largest magnitude of each channel, and some items drawn with equal chances.

    An item is a row of a linear layer's input, or a sample of a convolution's; its first axis
    counts channels.

    Args:
        rank: number of axes of an item.
        keep: how many items to keep.
        seed: of the draw, which does not depend on how the stream is cut.
    """

    def __init__(self, rank: int, keep: int = 0, seed: int = 0) -> None:
        self.maxima = np.zeros(0, np.float32)
        self.items: np.ndarray | None = None
        self._rank, self._keep = rank, keep
        self._keys = np.zeros(0)
        self._generator = np.random.default_rng(seed)

    def update(self, values: np.ndarray) -> None:
        """See more items; all axes before the item's count them."""
        items = values.reshape(-1, *values.shape[values.ndim - self._rank :])
        if not items.size:
            return
        largest = np.abs(items).max(axis=(0, *range(2, items.ndim)))
        self.maxima = np.maximum(self.maxima, largest) if self.maxima.size else largest
        if not self._keep:
            return
        # Every item gets a random key; those with the smallest keys stay.
        keys = self._generator.random(len(items))
        candidates = np.argsort(keys)[: self._keep]
        joined = np.concatenate([self._keys, keys[candidates]])
        kept = np.argsort(joined)[: self._keep]
        chosen = items[candidates]
        old = chosen[:0] if self.items is None else self.items
        self.items = np.concatenate([old, chosen])[kept]
        self._keys = joined[kept]

    def range(self, grid: AffineFormat) -> tuple[float, float]:
        """Symmetric around 0, wide enough for the largest magnitude."""
        largest = float(self.maxima.max(initial=0.0))
        return -largest, largest


def item_rank(layer: Layer) -> int:
    """How many axes an item of a layer's input has: channels, and what a window moves over."""
    return 1 if layer.kind == "linear" else len(layer.shape) - 1


def observe_inputs(
    module: ir.IRModule,
    layers: Sequence[Layer],
    calibration: Calibration,
    keep: Mapping[int, int] | None = None,
    seed: int = 0,
) -> dict[str, ChannelStatistics]:
    """Statistics of the layers' inputs, by the name of the input's variable.

    Args:
        module: what the layers are from.
        layers: linear layers and convolutions whose inputs are variables.
        calibration: samples.
        keep: by the items' number of axes, how many items to keep; none by default.
        seed: of the draw.
    """
    ranks = {layer.input.name: item_rank(layer) for layer in layers}  # pyright: ignore[reportAttributeAccessIssue]
    counts = keep or {}

    def make(name: str) -> ChannelStatistics:
        return ChannelStatistics(ranks[name], counts.get(ranks[name], 0), seed)

    found = calibration.observe(module, ranks, make)
    return {name: seen for name, seen in found.items() if isinstance(seen, ChannelStatistics)}
