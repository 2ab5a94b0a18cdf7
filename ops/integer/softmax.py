"""Integer softmax: a table of exponentials and one integer division per row."""

from __future__ import annotations

import numpy as np
import torch
from tvm import relax

from ..registry import define
from .arithmetic import integers

#: The largest entry of the exponential table, exp(0).
ONE = 2**15


def exponential_table(scale: float) -> np.ndarray:
    """int32 [256]: ``round(2^15 * exp(-scale * d))``, d the distance from the row's maximum."""
    return np.rint(ONE * np.exp(-scale * np.arange(256, dtype=np.float64))).astype(np.int32)


def _same_type(call: relax.Call) -> relax.TensorType:
    return call.args[0].ty


@define("fewbits.softmax", "Integer softmax over the last axis", _same_type)
def softmax(call: relax.Call, x: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
    """Shares ``p = (e * (2^31 // sum e)) >> 15`` of 65536, scaled to the output's step."""
    attrs = call.attrs
    values = integers(x)
    exponentials = integers(table)[values.amax(-1, keepdim=True) - values]
    reciprocal = (2**31) // exponentials.sum(-1, keepdim=True)
    share = torch.bitwise_right_shift(exponentials * reciprocal, 15)
    scaled = torch.bitwise_right_shift(share * attrs["multiplier"] + attrs["bias"], attrs["shift"])
    return scaled.clamp(attrs["minimum"], attrs["maximum"]).to(torch.int8)
