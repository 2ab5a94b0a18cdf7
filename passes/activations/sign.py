"""Values that are never negative, whatever the inputs: those need no levels below zero."""

from __future__ import annotations

from typing import Any

from tvm import ir, relax

from ..rewrite import Rewriter, as_array, operator_of

#: Results that are at least 0 by their definition.
_ALWAYS = frozenset(
    f"relax.{name}" for name in ("nn.relu", "nn.softmax", "sigmoid", "exp", "abs", "square", "sqrt")
)
#: Results that are made of the first argument's values, or of their means.
_FROM_FIRST = frozenset(
    f"relax.{name}"
    for name in (
        "reshape", "permute_dims", "squeeze", "expand_dims", "flatten", "strided_slice", "take",
        "mean", "sum", "max", "min", "nn.max_pool2d", "nn.avg_pool2d", "nn.adaptive_avg_pool2d",
        "broadcast_to", "repeat", "tile", "nn.max_pool1d", "nn.avg_pool1d",
    )
)  # fmt: skip
#: Results that are at least 0 where both arguments are.
_FROM_BOTH = frozenset({"relax.add", "relax.multiply", "relax.minimum"})


def never_negative(rewriter: Rewriter, value: relax.Expr) -> bool:
    """Whether a value is at least 0 for all inputs, as far as operators tell."""
    if isinstance(value, ir.GenericConst):
        return bool((as_array(value) >= 0).all())
    call: Any = rewriter.values.get(value) if isinstance(value, relax.Var) else None
    name = operator_of(call)
    if name in _ALWAYS:
        return True
    if name == "relax.clip":
        return float(call.args[1].value) >= 0
    if name in _FROM_FIRST:
        return never_negative(rewriter, call.args[0])
    if name in _FROM_BOTH:
        return all(never_negative(rewriter, argument) for argument in call.args)
    if name == "relax.maximum":
        return any(never_negative(rewriter, argument) for argument in call.args)
    return False
