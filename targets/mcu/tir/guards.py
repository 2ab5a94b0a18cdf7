"""Padding without work: tests move out of loops and become loop bounds.

Legalized convolutions and pools read ``inside ? x[...] : 0`` in their innermost loop. Adding a zero
(or taking the maximum with the lowest value) does nothing, so the test can guard the whole
statement, and a test such as ``0 <= y + r && y + r < 8`` around a loop over r is a range for r:

    for r in [0, 3): acc += (0 <= y + r && y + r < 8 ? x[y + r] : 0) * w[r]
    for r in [max(0, -y), min(3, 8 - y)): acc += x[y + r] * w[r]
"""

from __future__ import annotations

import math

import tvm_ffi
from tvm import ir, sym, tirx
from tvm.ir import prim


def tighten(function: tirx.PrimFunc) -> tirx.PrimFunc:
    """Turn padding tests into loop bounds, in a lowered function."""
    return function.with_body(
        tvm_ffi.structural_map(
            function.body, [(tirx.BufferStore, _guard_store), (tirx.For, _tighten_loop)]
        )
    )


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


def _tighten_loop(loop: tirx.For) -> tirx.Stmt:
    body = loop.body
    if not isinstance(body, tirx.IfThenElse) or body.else_case is not None:
        return loop
    if loop.kind != tirx.ForKind.SERIAL or not isinstance(loop.min, prim.IntImm):
        return loop
    variable, dtype = loop.loop_var, str(loop.loop_var.ty.dtype)
    lower: list[ir.Expr] = []
    upper: list[ir.Expr] = []
    outside: list[ir.Expr] = []
    inside: list[ir.Expr] = []
    for term in _conjuncts(body.condition):
        if not _mentions(term, variable):
            outside.append(term)
        elif _mentions_memory(term) or not _bound(term, variable, lower, upper):
            inside.append(term)
    if len(inside) == len(_conjuncts(body.condition)):
        return loop
    result = body.then_case
    if inside:
        result = tirx.IfThenElse(_all(inside), result, None)
    analyzer = sym.Analyzer()
    first, end = loop.min, analyzer.simplify(loop.min + loop.extent)
    for bound in lower:
        first = prim.Max(first, bound)
    for bound in upper:
        end = prim.Min(end, bound)
    first, end = analyzer.simplify(first), analyzer.simplify(end)
    if lower or upper:
        # The extent is only ever used as min + extent, an end that may lie before the start.
        result = _loop(loop, variable, first, end, result, dtype)
    else:
        result = _loop(loop, variable, loop.min, end, result, dtype)
    return tirx.IfThenElse(_all(outside), result, None) if outside else result


def _loop(loop, variable, first, end, body, dtype) -> tirx.For:
    extent = sym.Analyzer().simplify(end - first)
    return tirx.For(variable, first, extent, loop.kind, body, None, loop.annotations)


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


def _bound(term: ir.Expr, variable: ir.Var, lower: list[ir.Expr], upper: list[ir.Expr]) -> bool:
    """Add the term to the bounds of `variable`: inclusive lower, exclusive upper."""
    if isinstance(term, prim.LE):
        slack = term.b - term.a
    elif isinstance(term, prim.LT):
        slack = term.b - term.a - 1
    elif isinstance(term, prim.GE):
        slack = term.a - term.b
    elif isinstance(term, prim.GT):
        slack = term.a - term.b - 1
    else:
        return False
    if str(slack.ty.dtype) not in ("int32", "int64"):
        return False
    parts = sym.detect_linear_equation(slack, [variable])
    if len(parts) != 2 or not isinstance(parts[0], prim.IntImm):
        return False
    factor, rest = int(parts[0]), parts[1]
    if factor == 0:
        return False
    # factor * variable + rest >= 0
    if factor > 0:
        lower.append(_divided(factor - 1 - rest, factor))
    else:
        upper.append(_divided(rest, -factor) + 1)
    return True


def _divided(value: ir.Expr, divisor: int) -> ir.Expr:
    return value if divisor == 1 else tirx.floordiv(value, divisor)
