"""Convolutions and transposed convolutions in one, two and three dimensions, any plain layout."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F

from ..registry import meaning
from .common import Call, ints, is_integer, relayout, torch_dtype

Tensor = torch.Tensor

_CONV: dict[int, Callable[..., Tensor]] = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
_TRANSPOSED: dict[int, Callable[..., Tensor]] = {
    1: F.conv_transpose1d,
    2: F.conv_transpose2d,
    3: F.conv_transpose3d,
}
_SPACE = {1: "W", 2: "HW", 3: "DHW"}


def spatial_padding(padding: tuple[int, ...], rank: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """TVM's padding of 1, `rank` or 2·`rank` values as (before, after) per axis."""
    if len(padding) == 1:
        padding = padding * (2 * rank)
    elif len(padding) == rank:
        padding = padding * 2
    return padding[:rank], padding[rank:]


def torch_padding(before: tuple[int, ...], after: tuple[int, ...]) -> list[int]:
    """The same for ``F.pad``, which counts axes from the last."""
    pairs = zip(reversed(before), reversed(after), strict=True)
    return [amount for pair in pairs for amount in pair]


def _finish(call: Call, result: Tensor, data: Tensor, channels_first: str) -> Tensor:
    attrs = call.attrs
    result = relayout(result, channels_first, attrs.out_layout or attrs.data_layout)
    return result.to(torch_dtype(attrs.out_dtype) if attrs.out_dtype else data.dtype)


def _computable(data: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Integers become float64, in which their sums are exact."""
    if is_integer(data):
        return data.to(torch.float64), weight.to(torch.float64)
    return data, weight


@meaning("relax.nn.conv1d", "relax.nn.conv2d", "relax.nn.conv3d")
def convolution(call: Call, data: Tensor, weight: Tensor) -> Tensor:
    """Cross-correlation, zero padded; padding may differ on every side."""
    attrs = call.attrs
    rank = data.dim() - 2
    x = relayout(data, attrs.data_layout, "NC" + _SPACE[rank])
    w = relayout(weight, attrs.kernel_layout, "OI" + _SPACE[rank])
    x, w = _computable(x, w)
    before, after = spatial_padding(ints(attrs.padding), rank)
    if before != after:
        x = F.pad(x, torch_padding(before, after))
        before = (0,) * rank
    result = _CONV[rank](
        x, w, None, ints(attrs.strides), before, ints(attrs.dilation), int(attrs.groups)
    )
    return _finish(call, result, data, "NC" + _SPACE[rank])


@meaning("relax.nn.conv1d_transpose", "relax.nn.conv2d_transpose", "relax.nn.conv3d_transpose")
def transposed_convolution(call: Call, data: Tensor, weight: Tensor) -> Tensor:
    """The gradient of a convolution: `padding` crops the result, `output_padding` extends it."""
    attrs = call.attrs
    rank = data.dim() - 2
    x = relayout(data, attrs.data_layout, "NC" + _SPACE[rank])
    w = relayout(weight, attrs.kernel_layout, "IO" + _SPACE[rank])
    x, w = _computable(x, w)
    before, after = spatial_padding(ints(attrs.padding), rank)
    full = _TRANSPOSED[rank](
        x,
        w,
        None,
        stride=ints(attrs.strides),
        groups=int(attrs.groups),
        dilation=ints(attrs.dilation),
    )
    extra = ints(attrs.output_padding)
    crop_after = tuple(e - a for e, a in zip(extra, after, strict=True))
    result = F.pad(full, torch_padding(tuple(-b for b in before), crop_after))
    return _finish(call, result, data, "NC" + _SPACE[rank])
