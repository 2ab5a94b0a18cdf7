"""A few bindings of a graph as a function of its own, in the form that ``FuseTIR`` wants."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from tvm import ir, relax
from tvm.relax.utils import copy_with_new_vars


@dataclasses.dataclass(frozen=True)
class Outline:
    """Calls moved into a function.

    Attributes:
        variable: the function's name.
        function: takes what the calls read from outside, gives what is read outside.
        arguments: at the place it came from.
        called: the functions called inside.
        bindings: what takes the calls' place.
    """

    variable: ir.GlobalVar
    function: relax.Function
    arguments: tuple[Any, ...]
    called: tuple[ir.GlobalVar, ...]
    bindings: tuple[relax.VarBinding, ...]

    def caller(self) -> relax.Function:
        """A function that calls the outlined one, for trials."""
        whole = copy_with_new_vars(self.function)
        builder = relax.BlockBuilder()
        with builder.function("caller", list(whole.params)):
            with builder.dataflow():
                output = builder.emit_output(relax.Call(self.variable, list(whole.params)))
            builder.emit_func_output(output)
        return builder.get()["caller"]


def outline(
    group: Sequence[relax.VarBinding],
    outputs: Sequence[Any],
    name: str,
    same: Outline | None = None,
) -> Outline | None:
    """The group as a function, or None where FuseTIR cannot have it.

    Args:
        group: calls of PrimFuncs by ``call_tir``, and projections of their tuples, in order.
        outputs: variables of the group that are read outside; each is one tensor.
        name: of the function.
        same: an outline with an equal function, which is called instead of a new one.
    """
    if not outputs or not all(isinstance(each.ty, relax.TensorType) for each in outputs):
        return None
    builder = relax.BlockBuilder()
    places: dict[Any, Any] = {}
    arguments: list[Any] = []

    def read(expression: Any) -> Any:
        """What stands for a value inside; values from outside become parameters."""
        for known, inside in [*places.items()]:
            if expression.same_as(known):
                return inside
        parameter = relax.Var(f"p{len(arguments)}", expression.ty)
        places[expression] = parameter
        arguments.append(expression)
        return parameter

    for each in group:
        if isinstance(each.value, relax.TupleGetItem):
            continue
        own = {b.var for b in group}
        for value in each.value.args[1].fields:
            if value not in own:
                read(value)
    with builder.function("outlined", [places[value] for value in arguments]):
        with builder.dataflow():
            for each in group:
                value = each.value
                if isinstance(value, relax.TupleGetItem):
                    item = relax.TupleGetItem(places[value.tuple_value], value.index)
                    places[each.var] = builder.emit(item)
                    continue
                fields = relax.Tuple([read(field) for field in value.args[1].fields])
                call = relax.Call(value.op, [value.args[0], fields], value.attrs, value.ty_args)
                places[each.var] = builder.emit(call)
            results = [places[variable] for variable in outputs]
            whole = results[0] if len(results) == 1 else relax.Tuple(results)
            output = builder.emit_output(whole)
        builder.emit_func_output(output)
    function = copy_with_new_vars(builder.get()["outlined"]).with_attr("Primitive", True)
    if relax.analysis.free_symbolic_vars(function):
        return None
    scope = relax.BlockBuilder()
    if same is None:
        variable = scope.add_func(function.without_attr("global_symbol"), name)
        function = scope.get()[variable]
    else:
        variable, function = same.variable, same.function
    called = scope.normalize(relax.Call(variable, arguments))
    calls = tuple(b.value.args[0] for b in group if not isinstance(b.value, relax.TupleGetItem))
    if len(outputs) == 1:
        bindings = [relax.VarBinding(outputs[0], called)]
    else:
        both = relax.DataflowVar(name, called.ty)
        items = [scope.normalize(relax.TupleGetItem(both, n)) for n in range(len(outputs))]
        bindings = [
            relax.VarBinding(both, called),
            *(relax.VarBinding(v, item) for v, item in zip(outputs, items, strict=True)),
        ]
    return Outline(variable, function, tuple(arguments), calls, tuple(bindings))
