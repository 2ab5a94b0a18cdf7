"""Padding without work: tests move out of loops and become loop bounds.

Legalized convolutions and pools read ``inside ? x[...] : 0`` in their innermost loop. Adding a zero
(or taking the maximum with the lowest value) does nothing, so the test can guard the whole
statement, and a test such as ``0 <= y + r && y + r < 8`` around a loop over r is a range for r:

    for r in [0, 3): acc += (0 <= y + r && y + r < 8 ? x[y + r] : 0) * w[r]

    if (0 <= y && y + 2 < 8) for r in [0, 3): acc += x[y + r] * w[r]
    else for r in [max(0, -y), min(3, 8 - y)): acc += x[y + r] * w[r]
"""

from __future__ import annotations

import dataclasses
import math

import tvm_ffi
from tvm import ir, sym, tirx
from tvm.ir import prim


def tighten(function: tirx.PrimFunc) -> tirx.PrimFunc:
    """Turn padding tests into loop bounds, in a lowered function."""
    body = tvm_ffi.structural_map(function.body, [(tirx.BufferStore, _guard_store)])
    body = tvm_ffi.structural_map(body, [(tirx.For, _tighten_nest)], order="pre")
    return function.with_body(body)


def _guard_store(store: tirx.BufferStore) -> tirx.Stmt:
    """``acc = acc + (c ? a : 0) * b`` as ``if (c) acc = acc + a * b``; likewise without ``* b``
    and for maxima and minima."""
    value = store.value
    if not isinstance(value, prim.Add | prim.Max | prim.Min):
        return store
    if not _loads(value.a, store):
        return store
    idle = {
        prim.Add: lambda v: v == 0,
        prim.Max: lambda v: v <= _lowest(value),
        prim.Min: lambda v: v >= -_lowest(value),
    }[type(value)]
    found = _guarded(value.b, idle, isinstance(value, prim.Add))
    if found is None:
        return store
    condition, inner = found
    update = tirx.BufferStore(store.buffer, type(value)(value.a, inner), store.indices)
    return tirx.IfThenElse(condition, update, None)


def _loads(expression: ir.Expr, store: tirx.BufferStore) -> bool:
    return (
        isinstance(expression, ir.TensorLoad)
        and expression.source.same_as(store.buffer)
        and tvm_ffi.structural_equal(expression.indices, store.indices)
    )


def _lowest(value: ir.Expr) -> float:
    """The lowest finite value of a dtype (pools pad with it)."""
    dtype = str(value.ty.dtype)
    if dtype == "float32":
        return -3.4028234663852886e38
    if dtype.startswith("int"):
        return -(2.0 ** (int(dtype[3:]) - 1))
    return -math.inf


def _guarded(expression: ir.Expr, idle, product: bool) -> tuple[ir.Expr, ir.Expr] | None:
    """(condition, value) where the value is idle unless the condition holds."""
    if isinstance(expression, prim.Cast):
        found = _guarded(expression.value, idle, product)
        if found is None:
            return None
        return found[0], prim.Cast(expression.ty, found[1])
    if product and isinstance(expression, prim.Mul):
        for one, other, left in (
            (expression.a, expression.b, True),
            (expression.b, expression.a, False),
        ):
            found = _guarded(one, idle, product)
            if found is not None:
                pair = (found[1], other) if left else (other, found[1])
                return found[0], prim.Mul(*pair)
        return None
    choice = _choice(expression)
    if choice is None:
        return None
    condition, value, otherwise = choice
    if isinstance(otherwise, prim.IntImm | prim.FloatImm) and idle(otherwise.value):
        return condition, value
    return None


def _choice(expression: ir.Expr) -> tuple[ir.Expr, ir.Expr, ir.Expr] | None:
    if isinstance(expression, prim.Select):
        return expression.condition, expression.true_value, expression.false_value
    if isinstance(expression, ir.Call) and expression.op.name.endswith("if_then_else"):
        condition, value, otherwise = expression.args
        return condition, value, otherwise
    return None


@dataclasses.dataclass
class _Bounds:
    """What the tests say about one loop of a nest."""

    loop: tirx.For
    lower: list[ir.Expr] = dataclasses.field(default_factory=list)
    upper: list[ir.Expr] = dataclasses.field(default_factory=list)

    @property
    def first(self) -> int:
        return int(self.loop.min)

    @property
    def last(self) -> int:
        return int(self.loop.min) + int(self.loop.extent) - 1

    def around(self, body: tirx.Stmt) -> tirx.For:
        """The loop over what the tests leave of its range."""
        analyzer = sym.Analyzer()
        first, end = self.loop.min, analyzer.simplify(self.loop.min + self.loop.extent)
        for bound in self.lower:
            first = prim.Max(first, bound)
        for bound in self.upper:
            end = prim.Min(end, bound)
        # The extent is only ever used as first + extent, an end that may lie before the first.
        extent = analyzer.simplify(end - first)
        loop = self.loop
        return tirx.For(
            loop.loop_var, analyzer.simplify(first), extent, loop.kind, body, None, loop.annotations
        )


def _tighten_nest(loop: tirx.For) -> tirx.Stmt:
    """Loops around one test: the test becomes bounds. Where the whole nest is inside, which is
    nearly everywhere, it runs with its constant bounds."""
    nest: list[_Bounds] = []
    body: tirx.Stmt = loop
    while isinstance(body, tirx.For) and _is_plain(body):
        nest.append(_Bounds(body))
        body = body.body
    if not nest or not isinstance(body, tirx.IfThenElse) or body.else_case is not None:
        return loop
    outside: list[ir.Expr] = []
    inside: list[ir.Expr] = []
    whole: list[ir.Expr] = []
    for term in _conjuncts(body.condition):
        mentioned = [bounds for bounds in nest if _mentions(term, bounds.loop.loop_var)]
        slack = None if _mentions_memory(term) else _slack(term)
        if not mentioned and not _mentions_memory(term):
            outside.append(term)
        elif mentioned and slack is not None and _bound(slack, mentioned[-1]):
            whole.append(_least(slack, mentioned))
        else:
            inside.append(term)
    if not outside and not whole:
        return loop
    result = tirx.IfThenElse(_all(inside), body.then_case, None) if inside else body.then_case
    for bounds in reversed(nest):
        result = bounds.around(result)
    if whole and not inside and all(term is not None for term in whole):
        plain = body.then_case
        for bounds in reversed(nest):
            plain = _Bounds(bounds.loop).around(plain)
        result = tirx.IfThenElse(_all([term >= 0 for term in whole]), _renamed(plain), result)
    return tirx.IfThenElse(_all(outside), result, None) if outside else result


def _is_plain(loop: tirx.For) -> bool:
    constant = isinstance(loop.min, prim.IntImm) and isinstance(loop.extent, prim.IntImm)
    return constant and loop.kind == tirx.ForKind.SERIAL


def _renamed(nest: tirx.Stmt) -> tirx.Stmt:
    """A copy of a loop nest with variables of its own: TIR defines each variable once."""
    if not isinstance(nest, tirx.For):
        return nest
    old = nest.loop_var
    new = ir.Var(old.name, old.ty)

    def exchange(variable: ir.Var) -> ir.Var:
        return new if variable.same_as(old) else variable

    body = _renamed(tvm_ffi.structural_map(nest.body, [(ir.Var, exchange)]))
    return tirx.For(new, nest.min, nest.extent, nest.kind, body, None, nest.annotations)


def _conjuncts(condition: ir.Expr) -> list[ir.Expr]:
    if isinstance(condition, prim.And):
        return _conjuncts(condition.a) + _conjuncts(condition.b)
    return [condition]


def _all(terms: list[ir.Expr]) -> ir.Expr:
    result = terms[0]
    for term in terms[1:]:
        result = prim.And(result, term)
    return result


def _mentions(expression: ir.Expr, variable: ir.Var) -> bool:
    found = tvm_ffi.structural_walk(
        expression,
        [(ir.Var, lambda v: tvm_ffi.VisitInterrupt(True) if v.same_as(variable) else None)],
    )
    return found is not None


def _mentions_memory(expression: ir.Expr) -> bool:
    found = tvm_ffi.structural_walk(
        expression, [(ir.TensorLoad, lambda _: tvm_ffi.VisitInterrupt(True))]
    )
    return found is not None


def _slack(term: ir.Expr) -> ir.Expr | None:
    """An integer that is not negative exactly where the term holds."""
    if isinstance(term, prim.LE):
        slack = term.b - term.a
    elif isinstance(term, prim.LT):
        slack = term.b - term.a - 1
    elif isinstance(term, prim.GE):
        slack = term.a - term.b
    elif isinstance(term, prim.GT):
        slack = term.a - term.b - 1
    else:
        return None
    return slack if str(slack.ty.dtype) in ("int32", "int64") else None


def _bound(slack: ir.Expr, bounds: _Bounds) -> bool:
    """Narrow the loop to where the slack is not negative: inclusive lower, exclusive upper."""
    parts = sym.detect_linear_equation(slack, [bounds.loop.loop_var])
    if len(parts) != 2 or not isinstance(parts[0], prim.IntImm) or int(parts[0]) == 0:
        return False
    factor, rest = int(parts[0]), parts[1]
    if factor > 0:
        bounds.lower.append(_divided(factor - 1 - rest, factor))
    else:
        bounds.upper.append(_divided(rest, -factor) + 1)
    return True


def _least(slack: ir.Expr, nest: list[_Bounds]) -> ir.Expr | None:
    """The slack's least value in the nest, None where it is not linear in all its loops."""
    parts = sym.detect_linear_equation(slack, [bounds.loop.loop_var for bounds in nest])
    if len(parts) != len(nest) + 1:
        return None
    least = parts[-1]
    for factor, bounds in zip(parts[:-1], nest, strict=True):
        if not isinstance(factor, prim.IntImm):
            return None
        extreme = bounds.first if int(factor) > 0 else bounds.last
        least = least + int(factor) * extreme
    return sym.Analyzer().simplify(least)


def _divided(value: ir.Expr, divisor: int) -> ir.Expr:
    return value if divisor == 1 else tirx.floordiv(value, divisor)
