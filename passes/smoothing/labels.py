"""Follow channels through operators: which channel of a producer an element belongs to.

Labels are an integer array with the rank of a value; an axis that the channel does not depend on
has size 1. So ``[1, 1, 384]`` says that the last axis counts channels, and after a reshape to heads
the labels are ``[1, 1, 12, 32]``. Symbolic dimensions are fine as long as no label depends on them.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from tvm import relax

from ..rewrite import operator_of

#: ``f(s x) = s f(x)`` for every element and every s > 0.
_HOMOGENEOUS = frozenset({"relax.nn.relu", "relax.nn.leakyrelu", "relax.negative", "relax.abs"})
_SHAPES = frozenset(
    {"relax.reshape", "relax.flatten", "relax.squeeze", "relax.expand_dims"}
)  # the order in memory stays
_POOLS = frozenset(
    f"relax.nn.{kind}_pool{rank}d"
    for kind in ("max", "avg", "adaptive_avg", "adaptive_max")
    for rank in (1, 2)
)


def extents(expression: Any) -> list[Any]:
    """A value's shape: ints, and the expressions of symbolic dimensions."""
    return [int(e) if hasattr(e, "value") else e for e in expression.ty.shape.values]


def operands(call: relax.Call) -> list[int]:
    """Places of the arguments in which a call is positively homogeneous, the likeliest first."""
    operator = operator_of(call)
    if operator in _HOMOGENEOUS | _SHAPES | _POOLS or operator in (
        "relax.permute_dims",
        "relax.broadcast_to",
        "relax.divide",
    ):
        return [0]
    if operator == "relax.multiply":
        return [1, 0]
    return [1] if operator == "relax.matmul" else []


def carry(call: relax.Call, place: int, labels: np.ndarray) -> np.ndarray | None:
    """Labels of a call's value from those of its argument at `place` (one of `operands`).

    Returns:
        None where a factor per channel of the argument is none of the value.
    """
    operator = operator_of(call)
    before, after = extents(call.args[place]), extents(call)
    if operator in _HOMOGENEOUS:
        return labels
    if operator in ("relax.multiply", "relax.divide"):
        return labels if _equal(before, after) else None
    if operator == "relax.matmul":
        # Columns of the right side are columns of the product.
        same = len(before) == len(after) and labels.ndim > 1 and labels.shape[-2] == 1
        return labels if same else None
    if operator == "relax.permute_dims":
        axes = call.attrs.axes
        return labels.transpose(None if axes is None else [int(axis) for axis in axes])
    if operator == "relax.broadcast_to":
        return labels.reshape([1] * (len(after) - labels.ndim) + list(labels.shape))
    if operator in _POOLS:
        return labels if all(size == 1 for size in labels.shape[2:]) else None
    return _reshaped(labels, before, after)


def along(labels: np.ndarray, axis: int, channels: int) -> np.ndarray | None:
    """One label per index of `axis` (negative), ``[channels]``; None if other axes matter too."""
    others = [size for at, size in enumerate(labels.shape) if at - labels.ndim != axis]
    if any(size != 1 for size in others):
        return None
    return np.broadcast_to(labels.reshape(-1), (channels,))


def _equal(first: list[Any], second: list[Any]) -> bool:
    return len(first) == len(second) and all(
        a == b if isinstance(a, int) and isinstance(b, int) else _same(a, b)
        for a, b in zip(first, second, strict=True)
    )


def _same(first: Any, second: Any) -> bool:
    return not isinstance(first, int) and not isinstance(second, int) and first.same_as(second)


def _reshaped(labels: np.ndarray, before: list[Any], after: list[Any]) -> np.ndarray | None:
    """Labels after a reshape that keeps the order in memory.

    Only the last axes from the first that matters need to be known; what comes before is as large
    on both sides then.
    """
    first = next((at for at, size in enumerate(labels.shape) if size > 1), labels.ndim)
    tail = before[first:]
    if not all(isinstance(extent, int) for extent in tail):
        return None
    size = math.prod(tail)
    for start in range(len(after), -1, -1):
        new = after[start:]
        if not all(isinstance(extent, int) for extent in new):
            return None
        if math.prod(new) == size:
            break
    else:
        return None
    full = np.broadcast_to(labels.reshape(labels.shape[first:]), tail).reshape(after[start:])
    for axis in range(full.ndim):
        one = full.take([0], axis)
        if (full == one).all():
            full = one
    return full.reshape([1] * start + list(full.shape))
