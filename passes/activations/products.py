"""Products of two run-time values, as attention has them: what of each side can be rounded."""

from __future__ import annotations

import dataclasses
from typing import Any

from tvm import ir, relax

from ..canonicalize.graph import Graph
from ..layers import find_layers
from ..rewrite import operator_of
from .options import ActivationOptions


@dataclasses.dataclass(frozen=True, eq=False)
class Operand:
    """An argument that is rounded before its use.

    Attributes:
        layer: the name of the layer that it is an argument of.
        var: the binding whose argument is replaced.
        place: of the argument.
        source: the value that is rounded.
        options: how.
    """

    layer: str
    var: relax.Var
    place: int
    source: relax.Var
    options: ActivationOptions


def product_operands(module: ir.IRModule, options: ActivationOptions) -> list[Operand]:
    """Both sides of every float matrix product without weights.

    A scale must not vary along the sum. On the left, rows may have their own. The right side's
    columns may, and where it is the transpose of a value (keys), rows of that value are columns
    here: it is rounded before it is transposed. Otherwise (values) it has one scale.
    """
    graph = Graph(module)
    weighted = {layer.var for layer in find_layers(module)}
    tensor = dataclasses.replace(options, strategy="tensor")
    found: list[Operand] = []
    for var, value in graph.bindings:
        is_product = operator_of(value) == "relax.matmul" and var not in weighted
        if not isinstance(value, relax.Call) or not is_product:
            continue
        left, right = value.args
        if not isinstance(left, relax.Var) or not isinstance(right, relax.Var):
            continue
        if str(var.ty.dtype) != "float32":
            continue
        found.append(Operand(var.name, var, 0, left, options))
        before: Any = graph.definition(right)
        if graph.used_once(right) and _swaps_last(before):
            found.append(Operand(var.name, right, 0, before.args[0], options))
        else:
            found.append(Operand(var.name, var, 1, right, tensor))
    return found


def _swaps_last(call: Any) -> bool:
    """Whether the last axis of a transpose's argument is the last but one of its result."""
    if operator_of(call) != "relax.permute_dims" or not isinstance(call.args[0], relax.Var):
        return False
    rank = len(call.ty.shape.values)
    axes = call.attrs.axes
    order = list(range(rank))[::-1] if axes is None else [int(axis) % rank for axis in axes]
    return rank > 1 and order[-2] == rank - 1
