"""Which float operators have an integer form, by what becomes of them."""

from __future__ import annotations

#: Multiply-accumulate: followed by a constant bias and an activation, all in one integer operator.
ANCHORS = frozenset(
    {"relax.nn.conv2d", "relax.nn.conv1d", "relax.nn.conv2d_transpose", "relax.matmul"}
)

#: Two operands of any shape; an activation may follow.
ARITHMETIC = frozenset(
    {"relax.add", "relax.subtract", "relax.multiply", "relax.maximum", "relax.minimum"}
)

#: Activations that are only a clamp of the result, so that they cost nothing after requantization.
CLAMPS = frozenset({"relax.nn.relu", "relax.clip"})

#: Functions of one element. Chains of them become one 256-entry table.
UNARY = CLAMPS | frozenset(
    "relax." + name
    for name in (
        "abs", "exp", "log", "sqrt", "rsqrt", "square", "erf", "tanh", "sigmoid", "negative",
        "sign", "floor", "ceil", "round", "sin", "cos", "atan", "sinh", "cosh",
        "nn.leakyrelu", "nn.gelu", "nn.gelu_tanh", "nn.silu", "nn.softplus",
    )
)  # fmt: skip

#: Unary when one operand is a scalar constant.
SCALAR_UNARY = ARITHMETIC | frozenset({"relax.divide", "relax.power"})

#: Data movement: the output's codes are the input's codes.
MOVERS = frozenset(
    "relax." + name
    for name in (
        "reshape", "permute_dims", "squeeze", "expand_dims", "flatten", "strided_slice", "take",
        "nn.pad", "broadcast_to", "tile", "flip", "repeat", "concat", "split",
        "nn.max_pool2d", "nn.max_pool1d", "image.resize2d",
    )
)  # fmt: skip

#: Reductions whose result gets a range of its own.
POOLS = frozenset(
    "relax." + name
    for name in (
        "nn.avg_pool2d", "nn.avg_pool1d", "nn.adaptive_avg_pool2d", "mean", "sum", "max", "min",
    )
)  # fmt: skip

#: Operators whose output range is known beforehand: (low, high) so that codes are round numbers.
FIXED_RANGES = {
    "relax.nn.softmax": (0.0, 255.0 / 256.0),
    "relax.sigmoid": (0.0, 255.0 / 256.0),
    "relax.tanh": (-1.0, 127.0 / 128.0),
}
