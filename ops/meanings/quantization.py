"""Between reals and codes, with the arithmetic of onnxruntime to the bit."""

from __future__ import annotations

import torch

from ..registry import meaning
from .common import Call, is_integer, torch_dtype

Tensor = torch.Tensor


def _along(parameter: Tensor, like: Tensor, axis: int) -> Tensor:
    """Scale or zero point, shaped to broadcast along the quantized axis."""
    if parameter.numel() == 1:
        return parameter.reshape(())
    shape = [1] * like.dim()
    shape[axis] = -1
    return parameter.reshape(shape)


@meaning("relax.quantize")
def quantize(call: Call, x: Tensor, scale: Tensor, zero_point: Tensor) -> Tensor:
    """``saturate(rint(x / scale) + zero_point)``: float32 division, half to even.

    To FP8 the quotient itself is rounded, saturating.
    """
    kind = torch_dtype(call.attrs.out_dtype)
    axis = int(call.attrs.axis)
    quotient = x.to(torch.float32) / _along(scale, x, axis).to(torch.float32)
    zero = _along(zero_point, x, axis)
    if kind.is_floating_point:
        limit = torch.finfo(kind).max
        return (quotient + zero.to(torch.float32)).clamp(-limit, limit).to(kind)
    limits = torch.iinfo(kind)
    # Codes of up to 16 bits are exact in float32; wider ones need float64.
    exact = torch.float32 if limits.bits <= 16 else torch.float64
    code = torch.round(quotient).to(exact) + zero.to(exact)
    code = code.clamp(limits.min, limits.max)
    return code.to(torch.int32).to(kind) if limits.bits < 32 else code.to(torch.int64).to(kind)


@meaning("relax.dequantize")
def dequantize(call: Call, x: Tensor, scale: Tensor, zero_point: Tensor) -> Tensor:
    """``(x - zero_point) * scale``: integer subtraction, then one float32 product."""
    axis = int(call.attrs.axis)
    zero = _along(zero_point, x, axis)
    if is_integer(x):
        # Up to 16 bits the difference is exact in float32; the sum of wider ones is not.
        narrow = torch.iinfo(x.dtype).bits <= 16
        exact = torch.float32 if narrow else torch.int64
        difference = (x.to(exact) - zero.to(exact)).to(torch.float32)
    else:
        difference = x.to(torch.float32) - zero.to(torch.float32)
    result = difference * _along(scale, x, axis).to(torch.float32)
    return result.to(torch_dtype(call.attrs.out_dtype))
