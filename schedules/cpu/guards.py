"""Conditions that hold on an interval of the loop: what padding looks like.

``if_then_else(1 <= i and i < 33, x[i - 1], 0)`` is three loops without a condition inside.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from tvm import ir, tirx
from tvm.ir import prim

from ..stages.program import uses
from .emit import simplified

_IF = "tirx.if_then_else"


@dataclasses.dataclass(frozen=True)
class Interval:
    """An expression as ``inside`` for low <= variable < high and ``outside`` elsewhere.

    Attributes:
        low: None where there is no lower bound.
        high: None where there is no upper bound.
        inside: still conditional where the condition has parts without the variable.
        outside: the expression elsewhere.
    """

    low: Any
    high: Any
    inside: Any
    outside: Any


def interval(value: Any, variable: Any) -> Interval | None:
    """The expression in parts; None where its condition is no interval of the variable."""
    if not isinstance(value, ir.Call) or getattr(value.op, "name", "") != _IF:
        return None
    condition, inside, outside = value.args
    low: Any = None
    high: Any = None
    rest: list[Any] = []
    for part in _conjunction(condition):
        if not uses(part, variable):
            rest.append(part)
            continue
        bound = _bound(part, variable)
        if bound is None:
            return None
        is_low, limit = bound
        if is_low:
            low = limit if low is None else tirx.max(low, limit)
        else:
            high = limit if high is None else tirx.min(high, limit)
    if low is None and high is None:
        return None
    for part in rest:
        inside = tirx.if_then_else(part, inside, outside)
    return Interval(low, high, inside, outside)


def _conjunction(condition: Any) -> list[Any]:
    if isinstance(condition, prim.And):
        return [*_conjunction(condition.a), *_conjunction(condition.b)]
    return [condition]


def _bound(part: Any, variable: Any) -> tuple[bool, Any] | None:
    """A comparison as (True, least value) or (False, first value beyond)."""
    if not isinstance(part, (prim.LT, prim.LE, prim.GT, prim.GE)):
        return None
    left, right = part.a, part.b
    if isinstance(part, (prim.GT, prim.GE)):
        left, right = right, left
    strict = isinstance(part, (prim.LT, prim.GT))
    if _is_shifted(right, variable):  # left <= variable + shift
        limit = left - simplified(right - variable)
        return True, simplified(limit + 1 if strict else limit)
    if _is_shifted(left, variable):
        limit = right - simplified(left - variable)
        return False, simplified(limit if strict else limit + 1)
    return None


def _is_shifted(expression: Any, variable: Any) -> bool:
    return uses(expression, variable) and not uses(simplified(expression - variable), variable)
