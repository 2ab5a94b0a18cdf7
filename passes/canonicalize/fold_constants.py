"""Compute at compile time what depends on constants alone.

A ``dequantize`` or ``decode`` of a constant stays: it is how few-bit weights look. Movements of a
``dequantize`` are done on its codes instead.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any, ClassVar

import torch
from tvm import ir, relax

from ...ops.meanings.common import from_numpy, ints, to_numpy, torch_dtype
from ...ops.registry import has_meaning, meaning_of
from ...ops.symbolic import symbols
from ..base import Pass, PassContext, register_pass
from ..rewrite import constant, operator_of
from .graph import Graph, array_of, dtype_of, key_of, op, rewrite, shape_of

_KEPT = frozenset({"relax.dequantize", "fewbits.decode"})


@register_pass
@dataclasses.dataclass(frozen=True)
class FoldConstants(Pass):
    """Replace calls on constants by their value.

    Attributes:
        limit: bytes that a result may take beyond what its arguments take (a broadcast or a
            ``full`` can be far larger than what it is made from).
    """

    name: ClassVar[str] = "fold-constants"
    limit: int = 1 << 16

    def apply(self, module: ir.IRModule, context: PassContext) -> ir.IRModule:
        """The module without computations on constants; the same object if it has none."""

        def fold(graph: Graph, _var: Any, value: Any) -> relax.Expr | None:
            call: Any = graph.definition(value.tuple_value) if _is_item(value) else value
            if not _is_computable(call) or _size(value) > self.limit + _argument_size(call):
                return None
            result = meaning_of(operator_of(call) or "")(call, *map(_value, call.args))
            if _is_item(value):
                result = result[value.index]
            if not isinstance(result, torch.Tensor):
                return None
            return constant(to_numpy(result))

        rules = {"relax.permute_dims": (move_codes, fold), "relax.reshape": (move_codes, fold)}
        graph = Graph(module)
        for _, value in graph.bindings:
            key = key_of(graph, value)
            if key is not None:
                rules.setdefault(key, (fold,))  # type: ignore[arg-type]
        return rewrite(module, rules)


def move_codes(graph: Graph, _var: Any, call: Any) -> relax.Expr | None:
    """A permuted or reshaped dequantize of a constant is a dequantize of the moved constant."""
    weight = graph.call(call.args[0], "relax.dequantize")
    if weight is None or not graph.used_once(call.args[0]):
        return None
    codes = array_of(weight.args[0])
    if codes is None:
        return None
    per_tensor = math.prod(shape_of(weight.args[1])) == 1
    axis = int(weight.attrs.axis) % codes.ndim if codes.ndim else 0
    if operator_of(call) == "relax.permute_dims":
        axes = call.attrs.axes
        order = ints(axes) if axes is not None else tuple(reversed(range(codes.ndim)))
        moved, new_axis = codes.transpose(order), order.index(axis) if order else 0
    else:
        target = shape_of(call)
        moved = codes.reshape(target)
        new_axis = 0 if per_tensor else _same_axis(codes.shape, target, axis)
        if new_axis is None:
            return None
    return op.dequantize(
        constant(moved), weight.args[1], weight.args[2], new_axis, str(weight.attrs.out_dtype)
    )


def _same_axis(old: tuple[int, ...], new: tuple[int, ...], axis: int) -> int | None:
    """Where an axis lies after a reshape that leaves it whole."""
    for candidate, size in enumerate(new):
        if size == old[axis] and math.prod(new[:candidate]) == math.prod(old[:axis]):
            return candidate
    return None


def _is_item(value: Any) -> bool:
    return isinstance(value, relax.TupleGetItem)


def _is_computable(call: Any) -> bool:
    """Whether everything a call depends on is known."""
    name = operator_of(call)
    if name is None or name in _KEPT or not has_meaning(name):
        return False
    return all(_is_known(argument) for argument in call.args)


def _is_known(argument: Any) -> bool:
    if isinstance(argument, relax.Tuple):
        return all(_is_known(field) for field in argument.fields)
    if isinstance(argument, relax.ShapeExpr):
        return not symbols(argument.values)
    if isinstance(argument.ty, ir.PrimType):
        return not symbols([argument])
    return not isinstance(argument, relax.Var | relax.Call | relax.TupleGetItem)


def _value(argument: Any) -> Any:
    """The argument as a meaning takes it."""
    if isinstance(argument, relax.Tuple):
        return tuple(_value(field) for field in argument.fields)
    if isinstance(argument, relax.ShapeExpr):
        return ints(argument.values)
    array = array_of(argument)
    return argument.value if array is None else from_numpy(array)


def _size(expression: Any) -> int:
    """Bytes of a tensor; 0 for what has no static shape."""
    if not isinstance(expression.ty, relax.TensorType) or expression.ty.shape is None:
        return 0
    return math.prod(shape_of(expression)) * torch_dtype(dtype_of(expression)).itemsize


def _argument_size(call: Any) -> int:
    fields = [f for a in call.args for f in (a.fields if isinstance(a, relax.Tuple) else [a])]
    return sum(array.nbytes for array in map(array_of, fields) if array is not None)
