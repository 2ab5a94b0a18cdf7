"""Convolution and transposed convolution over one to three spatial axes."""

from __future__ import annotations

import dataclasses
from typing import Any

from tvm import relax

from ..node import Node, Result
from ..values import constant
from .windows import Windows, windows_of

op: Any = relax.op

_CONVOLUTIONS = {1: op.nn.conv1d, 2: op.nn.conv2d, 3: op.nn.conv3d}
_TRANSPOSED = {1: op.nn.conv1d_transpose, 2: op.nn.conv2d_transpose, 3: op.nn.conv3d_transpose}


def _spatial_rank(node: Node) -> int:
    rank = node.rank() - 2
    if rank not in _CONVOLUTIONS:
        raise node.refuse(f"{rank} spatial axes")
    if node.rank(1) != rank + 2:
        raise node.error("invalid-node", f"data has {rank + 2} axes, weights {node.rank(1)}")
    kernel = node.ints("kernel_shape")
    if kernel and tuple(kernel) != node.shape(1)[2:]:
        raise node.error(
            "invalid-node", f"kernel_shape = {kernel}, but weights {list(node.shape(1))}"
        )
    return rank


def _check_channels(node: Node, weight_axis: int, groups: int) -> None:
    channels, weights = node.shape(0)[1], node.shape(1)
    given = weights[weight_axis] * (groups if weight_axis == 1 else 1)
    if groups < 1 or channels % groups or weights[0] % groups or given != channels:
        raise node.error(
            "invalid-node",
            f"{channels} input channels, weights {list(weights)} and group = {groups} do not fit",
        )


def with_bias(node: Node, result: relax.Expr, index: int = 2) -> relax.Expr:
    """`result` [N, C, ...] plus the per-channel bias, input `index`, if the node has one."""
    if not node.has(index):
        return result
    shape = (1, -1, *(1,) * (node.rank() - 2))
    bias = node.constant(index)
    if bias is not None:
        return op.add(result, constant(bias.reshape(shape)))
    channels = node.shape(index)[0]
    return op.add(result, op.reshape(node[index], (1, channels, *shape[2:])))


def _conv(node: Node) -> Result:
    rank, groups = _spatial_rank(node), node.int("group", 1)
    _check_channels(node, 1, groups)
    windows = windows_of(node, list(node.shape(1)[2:]))
    result = _CONVOLUTIONS[rank](
        node[0],
        node[1],
        strides=windows.strides,
        padding=windows.padding,
        dilation=windows.dilations,
        groups=groups,
    )
    return with_bias(node, result)


def _crops(node: Node, windows: Windows) -> Windows:
    """The transposed convolution's paddings: how much of the full result is cropped.

    They are given, or follow from `output_shape` or `auto_pad`. `output_padding` extends the
    result at the end; an extension is a negative crop.
    """
    count = len(windows.extent)
    extra = node.ints("output_padding") or [0] * count
    wanted = node.ints("output_shape", None)
    auto = node.string("auto_pad", "NOTSET")
    begin, end = [], []
    if wanted is None and auto in ("NOTSET", "", "VALID"):
        pads = [0] * (2 * count) if auto == "VALID" else windows.padding
        begin, end = pads[:count], pads[count:]
    else:
        if wanted is None:
            wanted = [e * s for e, s in zip(windows.extent, windows.strides, strict=True)]
        for full, more, size in zip(_full(windows), extra, wanted[-count:], strict=True):
            total = full + more - size
            smaller, larger = max(total, 0) // 2, -(-max(total, 0) // 2)
            begin.append(smaller if auto == "SAME_UPPER" else larger)
            # A result that is larger than the full one grows at its end.
            end.append((larger if auto == "SAME_UPPER" else smaller) + min(total, 0))
    end = [e - more for e, more in zip(end, extra, strict=True)]
    return dataclasses.replace(windows, begin=begin, end=end)


def _full(windows: Windows) -> list[int]:
    """Extents of the transposed convolution before anything is cropped."""
    return [
        (e - 1) * s + r
        for e, s, r in zip(windows.extent, windows.strides, windows.reach, strict=True)
    ]


def _conv_transpose(node: Node) -> Result:
    """The transposed convolution; crops that the operator cannot take become slices and pads."""
    rank, groups = _spatial_rank(node), node.int("group", 1)
    _check_channels(node, 0, groups)
    windows = _crops(node, windows_of(node, list(node.shape(1)[2:]), auto_pad=False))
    reach = windows.reach
    begin = [min(max(b, 0), r - 1) for b, r in zip(windows.begin, reach, strict=True)]
    end = [min(max(e, 0), r - 1) for e, r in zip(windows.end, reach, strict=True)]
    result = _TRANSPOSED[rank](
        node[0],
        node[1],
        strides=windows.strides,
        padding=[*begin, *end],
        output_padding=0,
        dilation=windows.dilations,
        groups=groups,
    )
    sizes = [f - b - e for f, b, e in zip(_full(windows), begin, end, strict=True)]
    more_begin = [b - done for b, done in zip(windows.begin, begin, strict=True)]
    more_end = [e - done for e, done in zip(windows.end, end, strict=True)]
    return with_bias(node, _crop(node, result, sizes, more_begin, more_end))


def _crop(
    node: Node, x: relax.Expr, sizes: list[int], begin: list[int], end: list[int]
) -> relax.Expr:
    """Cut `begin` and `end` off the spatial axes; negative amounts append zeros."""
    if any(amount > 0 for amount in (*begin, *end)):
        starts = [max(b, 0) for b in begin]
        stops = [size - max(e, 0) for size, e in zip(sizes, end, strict=True)]
        if any(start >= stop for start, stop in zip(starts, stops, strict=True)):
            raise node.error("invalid-node", "ConvTranspose: its pads crop everything")
        axes = list(range(2, 2 + len(sizes)))
        x = op.strided_slice(x, axes, starts, stops, [1] * len(sizes), assume_inbound=True)
    if any(amount < 0 for amount in (*begin, *end)):
        widths = [0, 0, 0, 0]
        for b, e in zip(begin, end, strict=True):
            widths += [max(-b, 0), max(-e, 0)]
        x = op.nn.pad(x, widths, "constant", 0.0)
    return x


CONVERTERS = {"Conv": _conv, "ConvTranspose": _conv_transpose}
