"""Local rules over a module: a rule looks at one binding and says what it may become.

A rule matches on the module as it is and answers in its terms: an expression over the old
variables that has the same value, nested as it likes. `rewrite` binds it under the old binding's
name, so rules never deal with names, order or dead code.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from tvm import ir, relax

from ...ops.meanings.common import ints
from ...ops.symbolic import equal, extents_of
from ..rewrite import Rewriter, as_array, is_tensor_call, operator_of, variables

#: Types that NumPy has itself.
_VIEWABLE = frozenset({"float32", "float64", "float16", "int8", "uint8", "int32", "int64"})

#: Relax's operators; their annotations are narrower than what they accept.
op: Any = relax.op


class Graph(Rewriter):
    """A rewriter that knows who uses what in the old module.

    Attributes:
        users: for every variable, the variables whose bindings use it, once per use.
        outputs: variables that the function returns.
    """

    def __init__(self, module: ir.IRModule) -> None:
        super().__init__(module)
        body: Any = self.function.body
        self.outputs = {self._unaliased(var) for var in variables(body.body)}
        self.users: dict[relax.Var, list[relax.Var]] = {}
        for var, value in self.bindings:
            for used in variables(value):
                self.users.setdefault(used, []).append(var)

    def _unaliased(self, var: relax.Var) -> relax.Var:
        """What ``a = b`` bindings lead to."""
        while isinstance(value := self.values.get(var), relax.Var):
            var = value
        return var

    def definition(self, expression: relax.Expr) -> relax.Expr | None:
        """What an old variable is bound to; None for parameters and constants."""
        return self.values.get(expression) if isinstance(expression, relax.Var) else None

    def call(self, expression: relax.Expr, *operators: str) -> Any:
        """The call of one of these operators that defines a variable, else None."""
        value = self.definition(expression)
        return value if operator_of(value) in operators else None

    def used_once(self, expression: relax.Expr) -> bool:
        """Whether exactly one place uses the variable, and the function does not return it."""
        if not isinstance(expression, relax.Var) or expression in self.outputs:
            return False
        return len(self.users.get(expression, ())) == 1


#: ``(graph, variable, its value) -> equal expression over old variables, or None``.
Rule = Callable[[Graph, Any, Any], "relax.Expr | None"]


def key_of(graph: Graph, value: relax.Expr) -> str | None:
    """What rules are filed under: ``relax.add``; ``relax.split[0]`` is one of several results."""
    if isinstance(value, relax.TupleGetItem):
        source = operator_of(graph.definition(value.tuple_value))
        return f"{source}[{value.index}]" if source else None
    return operator_of(value)


def rewrite(module: ir.IRModule, rules: Mapping[str, Sequence[Rule]]) -> ir.IRModule:
    """One sweep over the module; the same object if no rule had anything to say."""
    graph = Graph(module)
    changed = False
    for var, value in graph.bindings:
        replacement = None
        for rule in rules.get(key_of(graph, value) or "", ()):
            replacement = rule(graph, var, value)
            if replacement is not None:
                break
        if replacement is None or not _may_stand_for(graph, var, replacement):
            graph.keep(var, value)
            continue
        changed = True
        graph.replace(var, _emit(graph, replacement, var.name))
    return graph.finish() if changed else module


def _may_stand_for(graph: Graph, var: relax.Var, replacement: relax.Expr) -> bool:
    """Outputs must stay distinct computed variables."""
    if var not in graph.outputs or isinstance(replacement, relax.Call):
        return True
    return replacement in graph.values and replacement not in graph.outputs


def _emit(graph: Graph, expression: relax.Expr, name: str) -> relax.Expr:
    """Bind a nested expression inside out; every part wants the anchor's name, the last gets it."""
    if isinstance(expression, relax.Tuple):
        return relax.Tuple([_emit(graph, field, name) for field in expression.fields])
    if isinstance(expression, relax.TupleGetItem):
        source = _emit(graph, expression.tuple_value, name)
        return graph.emit(relax.TupleGetItem(source, expression.index), name)
    if is_tensor_call(expression):
        arguments = [_emit(graph, argument, name) for argument in expression.args]
        return graph.emit(
            relax.Call(expression.op, arguments, expression.attrs, expression.ty_args), name
        )
    return graph.map(expression)


# -- small questions about expressions --


def shape_of(expression: Any) -> tuple[Any, ...]:
    """The shape of a tensor expression: ints, and TVM's expressions where it is symbolic.

    Compared with ``==``, a symbolic size equals only itself: rules that look for certain sizes do
    not fire on it. `same_shape` proves more.
    """
    return extents_of(expression)


def same_shape(a: Any, b: Any) -> bool:
    """Whether two tensor expressions have one shape, for all sizes of symbolic dimensions."""
    left, right = shape_of(a), shape_of(b)
    return len(left) == len(right) and all(map(equal, left, right))


def is_number(extents: Sequence[Any]) -> bool:
    """Whether none of these sizes is symbolic."""
    return all(isinstance(extent, int) for extent in extents)


def dtype_of(expression: Any) -> str:
    """The element type's name of a tensor expression whose type is known."""
    return str(expression.ty.dtype)


def array_of(expression: relax.Expr) -> np.ndarray | None:
    """The value of a constant tensor (its own memory, not to be written to), else None."""
    if not isinstance(expression, ir.GenericConst):
        return None
    if dtype_of(expression) not in _VIEWABLE:
        return as_array(expression)
    array = np.from_dlpack(expression.value)  # pyright: ignore[reportAttributeAccessIssue]
    array.flags.writeable = False
    return array


def scalar_of(expression: relax.Expr) -> float | None:
    """The value of a constant tensor whose elements are all the same, else None."""
    array = array_of(expression)
    if array is None or array.size == 0 or array.dtype.kind not in "fiub":
        return None
    first = array.reshape(-1)[0]
    return float(first) if (array == first).all() else None


def axes_of(call: Any) -> tuple[int, ...]:
    """The axes of a ``permute_dims``, not negative."""
    rank = len(shape_of(call.args[0]))
    if call.attrs.axes is None:
        return tuple(reversed(range(rank)))
    return tuple(axis % rank for axis in ints(call.attrs.axes))


def keeps_order(call: Any) -> bool:
    """Whether a ``permute_dims`` leaves the order of elements alone: it moves only ones."""
    shape = shape_of(call.args[0])
    moved = [axis for axis in axes_of(call) if shape[axis] != 1]
    return moved == sorted(moved)


def attributes(call: Any) -> dict[str, Any]:
    """The call's attributes by name."""
    fields = type(call.attrs).__tvm_ffi_type_info__.fields
    return {field.name: getattr(call.attrs, field.name) for field in fields}


def with_attributes(call: Any, arguments: Sequence[relax.Expr], **changes: Any) -> relax.Call:
    """The same operator on other arguments, some attributes changed."""
    kind = type(call.attrs).__tvm_ffi_type_info__.type_key
    attrs = ir.make_node(kind, **{**attributes(call), **changes})
    return relax.Call(call.op, list(arguments), attrs, call.ty_args)
