"""Multiply-accumulate operations, layer by layer: the size of a model's work."""

from __future__ import annotations

import math
from typing import Any

from tvm import ir, relax

from .rewrite import operator_of

#: Anchors whose work is (elements of the result) times (weights that make one of them).
_CONVOLUTIONS = frozenset(
    {"relax.nn.conv1d", "relax.nn.conv2d", "relax.nn.conv3d", "fewbits.conv2d"}
)
_TRANSPOSED = frozenset(f"relax.nn.conv{rank}d_transpose" for rank in (1, 2, 3))
_DENSE = frozenset({"fewbits.dense"})
_MATMUL = frozenset({"relax.matmul", "fewbits.matmul"})


def macs(module: ir.IRModule) -> dict[str, int]:
    """Multiply-accumulates by layer name, in order, of float and of integer modules.

    Convolutions, dense layers and matrix products count; additions, pooling and activations do
    not. Padding counts as work, as is customary.
    """
    counts: dict[str, int] = {}
    for block in module["main"].body.blocks:
        for binding in block.bindings:
            count = _count(binding.value)
            if count:
                counts[binding.var.name] = count
    return counts


def _count(call: relax.Expr) -> int:
    name = operator_of(call)
    if not isinstance(call, relax.Call) or name is None:
        return 0
    if name in _CONVOLUTIONS:
        # One row of the weights makes one element; the output axis is O in OIHW, HWIO, OHWI.
        weight = _shape(call.args[1])
        layout = str(getattr(call.attrs, "kernel_layout", "O"))
        return math.prod(_shape(call)) * (math.prod(weight) // weight[layout.index("O")])
    if name in _TRANSPOSED:
        weight = _shape(call.args[1])
        return math.prod(_shape(call.args[0])) * math.prod(weight) // weight[0]
    if name in _DENSE:
        return math.prod(_shape(call)) * _shape(call.args[1])[-1]
    if name in _MATMUL:
        return math.prod(_shape(call)) * _shape(call.args[0])[-1]
    return 0


def _shape(expression: Any) -> tuple[int, ...]:
    return tuple(int(size) for size in expression.ty.shape.values)
