"""Sizes that are known only at run time: symbolic dimensions, and arithmetic on them.

A symbolic dimension is a ``tirx.Var`` (int64), and what shapes are computed from it is a primitive
expression of TVM. Importer, passes and evaluator need three things of them: put numbers in, make
them simple under the assumption that a dimension has at least one element, and know whether there
are any.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeAlias

from tvm import ir, relax, sym, tirx

from ..errors import FewbitsError

#: A size: a number, or a primitive expression of TVM.
Extent: TypeAlias = "int | Any"

#: No dimension is larger; lets TVM prove that sums and products do not overflow.
LARGEST_EXTENT = 2**31

_prim: Any = tirx

_BINARY: dict[Any, Callable[[Any, Any], Any]] = {
    _prim.Add: operator.add,
    _prim.Sub: operator.sub,
    _prim.Mul: operator.mul,
    _prim.FloorDiv: operator.floordiv,
    _prim.FloorMod: operator.mod,
    _prim.Div: lambda a, b: int(a / b) if b else 0,
    _prim.Min: min,
    _prim.Max: max,
    _prim.EQ: operator.eq,
    _prim.NE: operator.ne,
    _prim.LT: operator.lt,
    _prim.LE: operator.le,
    _prim.GT: operator.gt,
    _prim.GE: operator.ge,
    _prim.And: lambda a, b: bool(a) and bool(b),
    _prim.Or: lambda a, b: bool(a) or bool(b),
}


_SPELLED = {
    _prim.Add: "+",
    _prim.Sub: "-",
    _prim.Mul: "*",
    _prim.FloorDiv: "//",
    _prim.FloorMod: "%",
}


def is_symbol(expression: Any) -> bool:
    """Whether the expression is a symbolic dimension (Relax's variables are of the same class)."""
    return isinstance(expression, _prim.Var) and isinstance(expression.ty, ir.PrimType)


def symbols(expressions: Iterable[Any]) -> list[Any]:
    """The symbolic dimensions that occur in sizes, each once, in order."""
    found: dict[Any, None] = {}

    def visit(node: Any) -> None:
        if is_symbol(node):
            found[node] = None
        for operand in _operands(node):
            visit(operand)

    for expression in expressions:
        visit(expression)
    return list(found)


def _operands(expression: Any) -> tuple[Any, ...]:
    """What a size is computed from."""
    if type(expression) in _BINARY:
        return (expression.a, expression.b)
    if isinstance(expression, _prim.Cast):
        return (expression.value,)
    if isinstance(expression, _prim.Not):
        return (expression.a,)
    if isinstance(expression, _prim.Select):
        return (expression.condition, expression.true_value, expression.false_value)
    return tuple(expression.args) if isinstance(expression, ir.Call) else ()


def spell(extent: Any) -> str:
    """A size as people write it: a number, a dimension's name, ``N * T + 1``."""
    if isinstance(extent, int):
        return str(extent)
    if isinstance(extent, _prim.IntImm):
        return str(extent.value)
    if is_symbol(extent):
        return extent.name
    if type(extent) in _SPELLED:
        sides = [spell(side) for side in (extent.a, extent.b)]
        if not isinstance(extent, _prim.Add):
            sides = [f"({side})" if " " in side else side for side in sides]
        return f" {_SPELLED[type(extent)]} ".join(sides)
    if isinstance(extent, _prim.Min | _prim.Max):
        return f"{type(extent).__name__.lower()}({spell(extent.a)}, {spell(extent.b)})"
    return str(extent)


def spell_shape(shape: Iterable[Any]) -> str:
    """A shape as people write it: ``[N, T, 64]``."""
    return "[" + ", ".join(spell(extent) for extent in shape) + "]"


def equal(left: Any, right: Any) -> bool:
    """Whether two sizes are equal for all sizes of their symbolic dimensions, provably."""
    return simplified(left - right) == 0


def evaluate(expression: Any, sizes: Mapping[Any, int]) -> Any:
    """The number that an expression is, given the sizes of its symbolic dimensions.

    Raises:
        FewbitsError: ``internal`` for a symbol without a size, or a form of expression that no
            shape has.
    """
    if isinstance(expression, int | float):
        return expression
    if isinstance(expression, _prim.IntImm | _prim.FloatImm):
        return expression.value
    if is_symbol(expression):
        if expression not in sizes:
            raise FewbitsError("internal", f"dimension {expression.name!r} has no size")
        return sizes[expression]
    function = _BINARY.get(type(expression))
    if function is not None:
        return function(evaluate(expression.a, sizes), evaluate(expression.b, sizes))
    if isinstance(expression, _prim.Cast):
        return evaluate(expression.value, sizes)
    if isinstance(expression, _prim.Not):
        return not evaluate(expression.a, sizes)
    if isinstance(expression, _prim.Select):
        chosen = evaluate(expression.condition, sizes)
        return evaluate(expression.true_value if chosen else expression.false_value, sizes)
    if isinstance(expression, ir.Call) and str(expression.op.name).endswith("if_then_else"):
        condition, yes, no = expression.args
        return evaluate(yes if evaluate(condition, sizes) else no, sizes)
    raise FewbitsError("internal", f"cannot compute the size {expression}")


def simplified(expression: Any) -> Extent:
    """The same size written simply: an int where it is one; every dimension is at least 1."""
    if isinstance(expression, int):
        return expression
    if isinstance(expression, _prim.IntImm):
        return int(expression.value)
    result: Any = analyzer_for([expression]).simplify(expression)
    return int(result.value) if isinstance(result, _prim.IntImm) else result


def analyzer_for(expressions: Iterable[Any]) -> Any:
    """TVM's analyzer, knowing that every symbolic dimension in these is at least 1."""
    analyzer: Any = sym.Analyzer()
    for symbol in symbols(expressions):
        analyzer.bind(symbol, ir.Range(1, LARGEST_EXTENT))
    return analyzer


def extents_of(expression: Any) -> tuple[Extent, ...]:
    """The shape of a tensor expression: ints, and expressions where it is symbolic."""
    return tuple(
        int(extent.value) if isinstance(extent, _prim.IntImm) else extent
        for extent in expression.ty.shape.values
    )


def is_static(expression: Any) -> bool:
    """Whether a tensor's (or each of a tuple's) shape holds nothing but numbers."""
    type_: Any = getattr(expression, "ty", expression)
    if isinstance(type_, ir.TupleType):
        return all(is_static(field) for field in type_.fields)
    if not isinstance(type_, relax.TensorType):
        return True
    shape: Any = type_.shape
    return isinstance(shape, relax.ShapeExpr) and all(
        isinstance(extent, _prim.IntImm) for extent in shape.values
    )
