"""Integer layer norm: exact sums, an integer square root and one division per row."""

from __future__ import annotations

import torch
from tvm import relax

from ..registry import define
from .arithmetic import integers
from .elementwise import same_type

#: The row's deviation carries so many bits after the point, its reciprocal so many more.
ROOT_BITS = 8
RECIPROCAL_BITS = 40
#: Bits after the point of a normalized element.
NORMAL_BITS = 12


def integer_root(value: torch.Tensor) -> torch.Tensor:
    """``floor(sqrt(value))`` of int64 below 2^62, exactly."""
    root = value.to(torch.float64).sqrt().floor().to(torch.int64)
    # The rounded square root is off by one at most.
    root = torch.where(root * root > value, root - 1, root)
    return torch.where((root + 1) * (root + 1) <= value, root + 1, root)


@define("fewbits.layer_norm", "Integer layer norm over the last axis", same_type)
def layer_norm(
    call: relax.Call, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor
) -> torch.Tensor:
    """With n elements d_i = n x_i - sum x in a row: r = isqrt((sum d^2 // n + epsilon) << 16),
    p_i = (d_i * (2^40 // max(r, 1))) >> 20; ``clamp((p_i * weight_i + bias_i) >> shift)``."""
    attrs = call.attrs
    values = integers(x)
    count = x.shape[-1]
    distance = count * values - values.sum(-1, keepdim=True)
    spread = (distance * distance).sum(-1, keepdim=True) // count + attrs["epsilon"]
    root = integer_root(spread << (2 * ROOT_BITS))
    reciprocal = 2**RECIPROCAL_BITS // root.clamp(min=1)
    normal = torch.bitwise_right_shift(
        distance * reciprocal, RECIPROCAL_BITS - ROOT_BITS - NORMAL_BITS
    )
    total = normal * integers(weight) + integers(bias)
    shifted = torch.bitwise_right_shift(total, attrs["shift"])
    return shifted.clamp(attrs["minimum"], attrs["maximum"]).to(torch.int8)
