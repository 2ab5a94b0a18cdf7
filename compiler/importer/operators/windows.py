"""Sliding windows: the geometry that convolution and pooling share."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from ..node import Node


@dataclasses.dataclass(frozen=True)
class Windows:
    """Windows over the spatial axes of an [N, C, ...] tensor; one entry per spatial axis.

    Sizes in `extent` may be symbolic, as long as nobody looks at them. `begin` and `end` are
    paddings; they may be negative only where an operator allows cropping.
    """

    extent: Sequence[int]
    kernel: list[int]
    strides: list[int]
    dilations: list[int]
    begin: list[int]
    end: list[int]

    @property
    def padding(self) -> list[int]:
        """Begins, then ends: the order of ONNX and of Relax."""
        return [*self.begin, *self.end]

    @property
    def reach(self) -> list[int]:
        """Extent of the dilated kernel."""
        return [(k - 1) * d + 1 for k, d in zip(self.kernel, self.dilations, strict=True)]


def windows_of(node: Node, kernel: list[int], auto_pad: bool = True) -> Windows:
    """The node's strides, dilations, pads and (unless told not to) auto_pad as explicit numbers.

    Raises:
        FewbitsError: ``invalid-node`` for lists of the wrong length, zero or negative values.
    """
    extent = node.shape(0)[2:]
    count = len(extent)
    strides = node.ints("strides") or [1] * count
    dilations = node.ints("dilations") or [1] * count
    pads = node.ints("pads") or [0] * (2 * count)
    for name, values, length in (
        ("kernel_shape", kernel, count),
        ("strides", strides, count),
        ("dilations", dilations, count),
        ("pads", pads, 2 * count),
    ):
        if len(values) != length:
            raise node.error(
                "invalid-node", f"{name} has {len(values)} values for {count} spatial axes"
            )
        if min(values, default=1) < (0 if name == "pads" else 1):
            raise node.error("invalid-node", f"{name} = {values}")
    auto = node.string("auto_pad", "NOTSET") if auto_pad else "NOTSET"
    windows = Windows(extent, kernel, strides, dilations, pads[:count], pads[count:])
    if auto in ("NOTSET", ""):
        return windows
    if auto == "VALID":
        return dataclasses.replace(windows, begin=[0] * count, end=[0] * count)
    if auto not in ("SAME_UPPER", "SAME_LOWER"):
        raise node.error("invalid-node", f"auto_pad = {auto!r}")
    begin, end = [], []
    for size, reach, stride in zip(extent, windows.reach, strides, strict=True):
        total = max(0, (-(-size // stride) - 1) * stride + reach - size)
        less, more = total // 2, total - total // 2
        begin.append(less if auto == "SAME_UPPER" else more)
        end.append(more if auto == "SAME_UPPER" else less)
    return dataclasses.replace(windows, begin=begin, end=end)
