"""Float16 is how values of a model are stored, not how they are computed with.

A sum in float16 loses what a sum in float32 keeps, and most CPUs convert for every step anyhow. So
operators that sum or approximate get float32 arguments, and their result is rounded once, as the
oracle does. Values of bfloat16 have no interface in numpy and are refused.
"""

from __future__ import annotations

from typing import Any

from tvm import ir, relax

from ...errors import FewbitsError
from ...passes.rewrite import Rewriter, operator_of

_MOVING = frozenset({"relax.nn.pad", "relax.nn.pixel_shuffle", "relax.nn.relu"})
_COMPUTING = frozenset(
    f"relax.{name}"
    for name in (
        "matmul", "sum", "mean", "prod", "variance", "std", "cumsum", "cumprod", "einsum",
        "exp", "log", "tanh", "sigmoid", "erf", "sqrt", "rsqrt", "power", "sin", "cos", "tan",
        "asin", "acos", "atan", "sinh", "cosh", "asinh", "acosh", "atanh", "divide",
    )
)  # fmt: skip


def widen_half(module: ir.IRModule) -> ir.IRModule:
    """Operators that compute in float16 do so in float32."""
    rewriter = Rewriter(module)
    found = False
    for var, value in rewriter.bindings:
        if not _computes_in_half(value):
            rewriter.keep(var, value)
            continue
        found = True
        mapped: Any = rewriter.map(value)
        arguments = [_widened(rewriter, argument, var.name) for argument in mapped.args]
        wide = rewriter.emit(relax.Call(mapped.op, arguments, mapped.attrs), f"{var.name}:float32")
        narrow = rewriter.emit(relax.op.astype(wide, "float16"), var.name)
        rewriter.replace(var, narrow)
    return rewriter.finish() if found else module


def refuse_bfloat16(module: ir.IRModule) -> None:
    """Values that are computed may not be bfloat16; weights may be stored so.

    Raises:
        FewbitsError: ``unsupported-dtype``.
    """
    rewriter = Rewriter(module)
    for var in (*rewriter.parameters, *(var for var, _ in rewriter.bindings)):
        if _dtype(var) == "bfloat16":
            raise FewbitsError(
                "unsupported-dtype",
                "libraries have no bfloat16 tensors",
                where=var.name,
                hint="convert the model to float32 or float16",
            )


def _computes_in_half(value: Any) -> bool:
    name = operator_of(value)
    if name is None or not (
        name in _COMPUTING or (name.startswith("relax.nn.") and name not in _MOVING)
    ):
        return False
    # Only where the result's type follows from the arguments'.
    asked = str(getattr(value.attrs, "out_dtype", None) or "void")
    return _dtype(value) == "float16" and asked in ("void", "", "None")


def _widened(rewriter: Rewriter, argument: Any, name: str) -> Any:
    if isinstance(argument, relax.Tuple):
        return relax.Tuple([_widened(rewriter, field, name) for field in argument.fields])
    if _dtype(argument) != "float16":
        return argument
    return rewriter.emit(relax.op.astype(argument, "float32"), f"{name}:wide")


def _dtype(expression: Any) -> str | None:
    ty = expression.ty
    return str(ty.dtype) if isinstance(ty, relax.TensorType) else None
