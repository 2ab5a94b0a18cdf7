"""Types of the arithmetic inside a kernel: half types are computed in float32 and rounded once.

An operator of float16 that TVM legalized rounds after each addition and knows no accurate
exponential. Here every operation on half types is one of float32, values that never leave the
kernel stay float32, and what is stored is rounded. Whoever computes on with a value that is stored
as well uses the rounded one: codes fit the scale beside them. A cast that the graph itself asks for
(one to a half type inside a formula) still rounds, because it has a meaning: somebody wanted fewer
bits.

Functions of float32 are those of CUDA's math library without fast-math: ``expf``, ``logf`` and
``tanhf`` and all others that TVM lowers to it, at most 2 ulp off but for ``powf`` (4 ulp; CUDA C++
Programming Guide, table of maximum errors).
"""

from __future__ import annotations

from typing import Any

import tvm_ffi
from tvm import ir, tirx
from tvm.ir import prim

_HALF = frozenset({"float16", "bfloat16"})
_SMALL = frozenset({"int8", "int16", "uint8", "uint16", "bool"})


def dtype_of(expression: Any) -> str:
    """The element type of an expression or of a buffer."""
    return str(expression.ty.dtype)


def is_half(dtype: str) -> bool:
    """Whether values of this type are computed in float32."""
    return dtype in _HALF


def working(dtype: str) -> str:
    """The type that values of a type have between their computation and their rounding."""
    return "float32" if dtype in _HALF else dtype


def gathering(dtype: str) -> str:
    """The type that a reduction runs in: one that warps can shuffle, and sums do not lose."""
    return "int32" if dtype in _SMALL else working(dtype)


def cast(dtype: str, value: Any) -> Any:
    """The value in another type; itself where it has that type."""
    return value if dtype_of(value) == dtype else tirx.Cast(dtype, value)


def as_stored(dtype: str, value: Any) -> Any:
    """What a reader of memory of this type would see of the value, in its working type."""
    return cast(working(dtype), cast(dtype, value))


def widen(value: Any) -> Any:
    """The expression with its arithmetic on half types in float32; its own type may change."""
    return _widened(value) if _has_half(value) else value


def _has_half(value: Any) -> bool:
    found: list[bool] = []

    def visit(node: Any) -> None:
        if hasattr(node, "ty") and hasattr(node.ty, "dtype") and dtype_of(node) in _HALF:
            found.append(True)

    tvm_ffi.structural_walk(value, [(ir.Expr, visit)])
    return bool(found)


def _widened(node: Any) -> Any:
    dtype = dtype_of(node)
    if isinstance(node, ir.TensorLoad):
        return cast(working(dtype), node)
    if isinstance(node, prim.FloatImm):
        return tirx.const(float(node.value), working(dtype))
    if isinstance(node, prim.Cast):
        inner = _widened(node.value)
        if dtype in _HALF:
            return tirx.Cast("float32", tirx.Cast(dtype, inner))
        return cast(dtype, inner)
    if isinstance(node, prim.Select):
        condition = _widened(node.condition)
        return tirx.Select(condition, _widened(node.true_value), _widened(node.false_value))
    if isinstance(node, (prim.BinaryOpExpr, prim.CmpExpr, prim.LogicalExpr)):
        return type(node)(_widened(node.a), _widened(node.b))
    if isinstance(node, prim.Not):
        return prim.Not(_widened(node.a))
    if isinstance(node, prim.Let):
        value = _widened(node.value)
        variable = tirx.Var(node.var.name, dtype_of(value))
        body = tvm_ffi.structural_map(
            node.body, [(ir.Var, lambda var: variable if var.same_as(node.var) else var)]
        )
        return tirx.Let(variable, value, _widened(body))
    if isinstance(node, ir.Call):
        return ir.Call(
            node.op, [_widened(a) for a in node.args], attrs=node.attrs, ret_ty=working(dtype)
        )
    return node
