"""Integer addition, multiplication and table look-up."""

from __future__ import annotations

import torch
from tvm import relax

from ..registry import define
from .arithmetic import integers, requantize


def broadcast_type(call: relax.Call) -> relax.TensorType:
    """int8 in the shape that the first two arguments broadcast to."""
    shapes = [[int(d) for d in argument.ty.shape.values] for argument in call.args[:2]]
    return relax.TensorType(tuple(torch.broadcast_shapes(*shapes)), "int8")


@define("fewbits.add", "Integer sum of two differently scaled tensors", broadcast_type)
def add(call: relax.Call, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """``clamp((a * a_multiplier + b * b_multiplier + bias) >> shift)``, all within int32."""
    attrs = call.attrs
    total = (
        integers(a) * attrs["a_multiplier"] + integers(b) * attrs["b_multiplier"] + attrs["bias"]
    )
    shifted = torch.bitwise_right_shift(total, attrs["shift"])
    return shifted.clamp(attrs["minimum"], attrs["maximum"]).to(torch.int8)


@define("fewbits.multiply", "Integer product of two tensors", broadcast_type)
def multiply(call: relax.Call, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Product of both operands less their zero points; then requantize."""
    attrs = call.attrs
    return requantize(
        (integers(a) - attrs["a_zero"]) * (integers(b) - attrs["b_zero"]),
        attrs["bias"],
        attrs["multiplier"],
        attrs["shift"],
        attrs["minimum"],
        attrs["maximum"],
    )


def same_type(call: relax.Call) -> relax.TensorType:
    """The first argument's type."""
    return call.args[0].ty


@define("fewbits.lookup", "Any function of one int8 as a table", same_type)
def lookup(call: relax.Call, x: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
    """``table[x + 128]``."""
    return table[integers(x) + 128]
