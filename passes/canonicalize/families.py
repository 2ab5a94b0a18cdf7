"""Operators by how they treat the position of an element, for passes that move or remove data."""

from __future__ import annotations

#: One tensor; every element of the result depends on the element in its place.
UNARY = frozenset(
    "relax." + name
    for name in (
        "abs", "acos", "acosh", "asin", "asinh", "astype", "atan", "atanh", "bitwise_not", "ceil",
        "clip", "cos", "cosh", "erf", "exp", "floor", "isfinite", "isinf", "isnan", "log",
        "logical_not", "negative", "nn.gelu", "nn.gelu_tanh", "nn.leakyrelu", "nn.relu", "nn.selu",
        "nn.silu", "nn.softplus", "round", "rsqrt", "sigmoid", "sign", "sin", "sinh", "sqrt",
        "square", "tan", "tanh", "trunc",
    )
)  # fmt: skip

#: Several tensors that broadcast; every element depends on the elements in its place.
JOINT = frozenset(
    "relax." + name
    for name in (
        "add", "atan2", "bitwise_and", "bitwise_or", "bitwise_xor", "divide", "equal",
        "ewise_fma", "floor_divide", "floor_mod", "greater", "greater_equal", "left_shift", "less",
        "less_equal", "log_add_exp", "logical_and", "logical_or", "logical_xor", "maximum",
        "minimum", "mod", "multiply", "not_equal", "power", "right_shift", "subtract", "where",
    )
)  # fmt: skip

#: Per tensor or per axis, the axis in an attribute.
SCALED = frozenset({"relax.quantize", "relax.dequantize"})

REDUCTIONS = frozenset(
    f"relax.{name}" for name in ("sum", "mean", "max", "min", "prod", "variance", "std")
)

POOLS = frozenset(
    f"relax.nn.{kind}_pool{rank}d" for kind in ("max", "avg", "adaptive_avg") for rank in (1, 2, 3)
)

CONVOLUTIONS = frozenset(f"relax.nn.conv{rank}d" for rank in (1, 2, 3))
TRANSPOSED_CONVOLUTIONS = frozenset(f"relax.nn.conv{rank}d_transpose" for rank in (1, 2, 3))
