"""Float16 weights as the float32 constants that rules know.

``permute_dims(astype(constant float16 [O, I]))`` becomes a constant [I, O]. Nothing is lost: what a
kernel reads is rounded to the type of the activations again, and these numbers are that already.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from tvm import ir, relax

from ....passes.rewrite import Rewriter, as_array, constant, operator_of


def fold_half_weights(module: ir.IRModule) -> ir.IRModule:
    """The module with weights of products as float32 constants where they were float16."""
    rewriter = Rewriter(module)
    halves: dict[relax.Var, Any] = {}
    for var, value in rewriter.bindings:
        operator, call = operator_of(value), _call(value)
        if operator == "relax.astype" and _is_half(call.args[0]) and _widens(var):
            halves[var] = call.args[0]
        if operator == "relax.permute_dims" and call.args[0] in halves and call.attrs.axes is None:
            matrix = as_array(halves[call.args[0]]).astype(np.float32)
            rewriter.replace(var, constant(np.ascontiguousarray(matrix.T)))
            continue
        rewriter.keep(var, value)
    if not halves:
        return module
    folded = rewriter.finish()
    for variable, function in module.functions_items():
        if variable.name_hint != "main":
            folded.update_func(variable, function)
    return folded


def _call(value: relax.Expr) -> Any:
    return value


def _is_half(expression: Any) -> bool:
    if not isinstance(expression, ir.GenericConst):
        return False
    ty: Any = expression.ty
    return str(ty.dtype) in ("float16", "bfloat16") and len(ty.shape.values) == 2


def _widens(var: Any) -> bool:
    return str(var.ty.dtype) == "float32"
