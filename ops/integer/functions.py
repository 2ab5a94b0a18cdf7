"""Integer division, PReLU and bilinear resizing."""

from __future__ import annotations

import torch
from tvm import relax

from ..registry import define
from .arithmetic import integers
from .elementwise import broadcast_type, same_type

#: Interpolation weights are parts of 2^RESIZE_BITS.
RESIZE_BITS = 11


def _scaled(call: relax.Call, product: torch.Tensor) -> torch.Tensor:
    """``clamp((product + bias) >> shift)``."""
    attrs = call.attrs
    shifted = torch.bitwise_right_shift(product + attrs["bias"], attrs["shift"])
    return shifted.clamp(attrs["minimum"], attrs["maximum"]).to(torch.int8)


@define("fewbits.divide", "Integer quotient of two tensors", broadcast_type)
def divide(call: relax.Call, a: torch.Tensor, b: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
    """``clamp(((a - a_zero) * table[b + 128] + bias) >> shift)``; the table holds reciprocals."""
    reciprocal = integers(table)[integers(b) + 128]
    return _scaled(call, (integers(a) - call.attrs["a_zero"]) * reciprocal)


@define("fewbits.prelu", "Integer ReLU with a slope per channel, channels last", same_type)
def prelu(call: relax.Call, x: torch.Tensor, multiplier: torch.Tensor) -> torch.Tensor:
    """``clamp(((x - zero) * m + bias) >> shift)``: m is `positive` from `zero` on, else
    ``multiplier[c]``."""
    distance = integers(x) - call.attrs["zero"]
    factor = torch.where(distance >= 0, call.attrs["positive"], integers(multiplier))
    return _scaled(call, distance * factor)


def _resized_type(call: relax.Call) -> relax.TensorType:
    n, _, _, channels = (int(d) for d in call.args[0].ty.shape.values)
    height, width = (int(call.args[i].ty.shape.values[0]) for i in (2, 4))
    return relax.TensorType((n, height, width, channels), "int8")


@define("fewbits.resize2d", "Integer bilinear resizing, NHWC", _resized_type)
def resize2d(
    call: relax.Call,
    x: torch.Tensor,
    rows: torch.Tensor,
    row_weights: torch.Tensor,
    columns: torch.Tensor,
    column_weights: torch.Tensor,
) -> torch.Tensor:
    """Between rows ``rows[y]`` and columns ``columns[x]``, weights in parts of 2048."""
    one = 1 << RESIZE_BITS
    data = integers(x)
    below = integers(row_weights)[:, None, None]
    right = integers(column_weights)[:, None]
    pairs = integers(rows)
    lines = data[:, pairs[:, 0]] * (one - below) + data[:, pairs[:, 1]] * below
    pairs = integers(columns)
    total = lines[:, :, pairs[:, 0]] * (one - right) + lines[:, :, pairs[:, 1]] * right
    half = 1 << (2 * RESIZE_BITS - 1)
    return torch.bitwise_right_shift(total + half, 2 * RESIZE_BITS).to(torch.int8)
