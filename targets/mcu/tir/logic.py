"""Comparisons, conjunctions and choices; what bounds decide is not printed."""

from __future__ import annotations

from tvm import ir
from tvm.ir import prim

from . import interval as iv
from .expressions import ExpressionPrinter, prints
from .interval import Interval
from .text import AND, OR, RELATION, SHIFT, SUM, TERNARY, UNARY, Text, common, literal


@prints(prim.EQ, prim.NE, prim.LT, prim.LE, prim.GT, prim.GE)
def _compare(printer: ExpressionPrinter, expression: prim.CmpExpr) -> Text:
    symbol = {"EQ": "==", "NE": "!=", "LT": "<", "LE": "<=", "GT": ">", "GE": ">="}[
        type(expression).__name__
    ]
    a, b = printer(expression.a), printer(expression.b)
    if a.dtype not in iv.FLOATS:
        decided = _decide(symbol, a.range, b.range)
        if decided is not None:
            return literal(int(decided), "bool")
    code = f"{a.within(SUM)} {symbol} {b.within(SUM)}"
    return Text(code, RELATION, "bool", Interval(0, 1))


@prints(prim.And)
def _and(printer: ExpressionPrinter, expression: prim.And) -> Text:
    return _logical("&&", AND, printer(expression.a), printer(expression.b), absorbing="0")


@prints(prim.Or)
def _or(printer: ExpressionPrinter, expression: prim.Or) -> Text:
    return _logical("||", OR, printer(expression.a), printer(expression.b), absorbing="1")


def _logical(symbol: str, precedence: int, a: Text, b: Text, absorbing: str) -> Text:
    for one, other in ((a, b), (b, a)):
        if one.code in ("0", "1"):
            return one if one.code == absorbing else other
    # gcc asks for parentheses around && within ||.
    left = a.code if a.precedence in (precedence, RELATION) else a.within(SHIFT)
    code = f"{left} {symbol} {b.within(RELATION)}"
    return Text(code, precedence, "bool", Interval(0, 1))


@prints(prim.Not)
def _not(printer: ExpressionPrinter, expression: prim.Not) -> Text:
    return Text(f"!{printer(expression.a).within(UNARY)}", UNARY, "bool", Interval(0, 1))


@prints(prim.Select)
def _select(printer: ExpressionPrinter, expression: prim.Select) -> Text:
    return choose(printer, expression.condition, expression.true_value, expression.false_value)


def choose(printer: ExpressionPrinter, condition: ir.Expr, yes: ir.Expr, no: ir.Expr) -> Text:
    """One of two values; C evaluates only that one."""
    test = printer(condition)
    if test.code in ("0", "1"):
        return printer(yes) if test.code == "1" else printer(no)
    a, b = printer(yes), printer(no)
    code = f"{test.within(OR)} ? {a.within(OR)} : {b.within(OR)}"
    return Text(code, TERNARY, common(printer.dtype(yes), a, b), a.range.union(b.range))


def _decide(symbol: str, a: Interval, b: Interval) -> bool | None:
    """The comparison's result if bounds settle it."""
    if symbol == ">":
        return _decide("<", b, a)
    if symbol == ">=":
        return _decide("<=", b, a)
    if symbol == "<":
        return True if a.high < b.low else (False if a.low >= b.high else None)
    if symbol == "<=":
        return True if a.high <= b.low else (False if a.low > b.high else None)
    equal = None
    if a.low == a.high == b.low == b.high:
        equal = True
    elif a.high < b.low or b.high < a.low:
        equal = False
    if equal is None:
        return None
    return equal if symbol == "==" else not equal
