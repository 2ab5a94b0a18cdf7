"""Pooling over windows and over whole images.

Paddings leave here explicit: no `ceil_mode`, and padding counts in an average only where
`count_include_pad` says so for every window alike.
"""

from __future__ import annotations

import math
from typing import Any

from tvm import relax

from ..node import Node, Result
from .windows import Windows, windows_of

op: Any = relax.op

_MAXIMUM = {1: op.nn.max_pool1d, 2: op.nn.max_pool2d, 3: op.nn.max_pool3d}
_AVERAGE = {1: op.nn.avg_pool1d, 2: op.nn.avg_pool2d, 3: op.nn.avg_pool3d}


def _pool_windows(node: Node) -> Windows:
    kernel = node.ints("kernel_shape")
    if not kernel:
        raise node.error("invalid-node", "kernel_shape is missing")
    if len(kernel) not in _MAXIMUM:
        raise node.refuse(f"{len(kernel)} spatial axes")
    return windows_of(node, kernel)


def _ceil_padding(node: Node, windows: Windows) -> list[int]:
    """What `ceil_mode` adds to the padding at the end of each axis.

    A last window that is cut by the border counts, if it starts inside the image or the padding
    before it.
    """
    if not node.int("ceil_mode", 0) or node.string("auto_pad", "NOTSET") not in ("NOTSET", ""):
        return [0] * len(windows.extent)
    added = []
    for axis, size in enumerate(windows.extent):
        stride, reach = windows.strides[axis], windows.reach[axis]
        padded = size + windows.begin[axis] + windows.end[axis]
        count = -(-(padded - reach) // stride) + 1
        if (count - 1) * stride >= size + windows.begin[axis]:
            count -= 1
        added.append(max(0, (count - 1) * stride + reach - padded))
    return added


def _max_pool(node: Node) -> Result:
    if node.output_count > 1:
        raise node.refuse("the Indices output")
    windows = _pool_windows(node)
    end = [e + more for e, more in zip(windows.end, _ceil_padding(node, windows), strict=True)]
    return _MAXIMUM[len(windows.extent)](
        node[0], windows.kernel, windows.strides, [*windows.begin, *end], windows.dilations
    )


def _average(node: Node, x: relax.Expr, include_padding: bool) -> relax.Expr:
    windows = _pool_windows(node)
    added = _ceil_padding(node, windows)
    begin, end = windows.begin, windows.end
    if include_padding and any(added):
        # Given padding counts, what ceil_mode adds does not: make the first part of the image.
        widths = [0, 0, 0, 0]
        for b, e in zip(begin, end, strict=True):
            widths += [b, e]
        x = op.nn.pad(x, widths, "constant", 0.0) if any(widths) else x
        begin, end, include_padding = [0] * len(begin), [0] * len(end), False
    return _AVERAGE[len(windows.extent)](
        x,
        windows.kernel,
        windows.strides,
        [*begin, *(e + more for e, more in zip(end, added, strict=True))],
        windows.dilations,
        count_include_pad=include_padding and any((*begin, *end)),
    )


def _average_pool(node: Node) -> Result:
    return _average(node, node[0], bool(node.int("count_include_pad", 0)))


def _spatial_axes(node: Node) -> list[int]:
    if node.rank() < 3:
        raise node.error("invalid-node", f"{node.operator} of a tensor of rank {node.rank()}")
    return list(range(2, node.rank()))


def _global_average_pool(node: Node) -> Result:
    return op.mean(node[0], axis=_spatial_axes(node), keepdims=True)


def _global_max_pool(node: Node) -> Result:
    return op.max(node[0], axis=_spatial_axes(node), keepdims=True)


def _root(node: Node, x: relax.Expr, order: int) -> relax.Expr:
    if order == 1:
        return x
    return op.sqrt(x) if order == 2 else op.power(x, node.scalar(1.0 / order))


def _powers(node: Node, order: int) -> relax.Expr:
    x = op.abs(node[0])
    if order == 1:
        return x
    return op.multiply(node[0], node[0]) if order == 2 else op.power(x, node.scalar(float(order)))


def _lp_pool(node: Node) -> Result:
    """The p-norm of each window, as an average of powers times the window's size."""
    order = node.int("p", 2)
    windows = _pool_windows(node)
    # Padding adds nothing to a sum of powers, so all of it may count.
    added = _ceil_padding(node, windows)
    end = [e + more for e, more in zip(windows.end, added, strict=True)]
    total = _AVERAGE[len(windows.extent)](
        _powers(node, order),
        windows.kernel,
        windows.strides,
        [*windows.begin, *end],
        windows.dilations,
        count_include_pad=True,
    )
    return _root(node, op.multiply(total, node.scalar(float(math.prod(windows.kernel)))), order)


def _global_lp_pool(node: Node) -> Result:
    order = node.int("p", 2)
    total = op.sum(_powers(node, order), axis=_spatial_axes(node), keepdims=True)
    return _root(node, total, order)


CONVERTERS = {
    "MaxPool": _max_pool,
    "AveragePool": _average_pool,
    "LpPool": _lp_pool,
    "GlobalMaxPool": _global_max_pool,
    "GlobalAveragePool": _global_average_pool,
    "GlobalLpPool": _global_lp_pool,
}
