"""Activations, softmax, attention, dropout, padding and pixel shuffle."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

from ...errors import FewbitsError
from ..registry import meaning
from .common import Call, ints, is_integer

Tensor = torch.Tensor


@meaning("relax.nn.relu")
def relu(_call: Call, x: Tensor) -> Tensor:
    """Negative elements become 0."""
    return torch.clamp(x, min=0)


@meaning("relax.nn.leakyrelu")
def leakyrelu(call: Call, x: Tensor) -> Tensor:
    """Negative elements are multiplied by `alpha`."""
    return torch.where(x > 0, x, x * float(call.attrs.alpha))


@meaning("relax.nn.prelu")
def prelu(call: Call, x: Tensor, slope: Tensor) -> Tensor:
    """Negative elements are multiplied by their channel's slope."""
    shape = [1] * x.dim()
    shape[int(call.attrs.axis)] = -1
    return torch.where(x > 0, x, x * slope.reshape(shape))


@meaning("relax.nn.gelu")
def gelu(_call: Call, x: Tensor) -> Tensor:
    """``x (1 + erf(x / sqrt 2)) / 2``."""
    return F.gelu(x)


@meaning("relax.nn.gelu_tanh")
def gelu_tanh(_call: Call, x: Tensor) -> Tensor:
    """GELU by its tanh approximation."""
    return F.gelu(x, approximate="tanh")


@meaning("relax.nn.silu")
def silu(_call: Call, x: Tensor) -> Tensor:
    """``x sigmoid(x)``."""
    return x * torch.sigmoid(x)


@meaning("relax.nn.selu")
def selu(_call: Call, x: Tensor) -> Tensor:
    """Scaled exponential linear unit with the standard constants."""
    return F.selu(x)


@meaning("relax.nn.softplus")
def softplus(call: Call, x: Tensor) -> Tensor:
    """``log(1 + exp(beta x)) / beta``, the identity above `threshold`."""
    return F.softplus(x, float(call.attrs.beta), float(call.attrs.threshold))


@meaning("relax.nn.softmax")
def softmax(call: Call, x: Tensor) -> Tensor:
    """Exponentials along an axis, divided by their sum."""
    return torch.softmax(x, int(call.attrs.axis))


@meaning("relax.nn.log_softmax")
def log_softmax(call: Call, x: Tensor) -> Tensor:
    """Logarithm of softmax."""
    return torch.log_softmax(x, int(call.attrs.axis))


@meaning("relax.nn.dropout")
def dropout(_call: Call, x: Tensor) -> tuple[Tensor, Tensor]:
    """At inference: the input, and a mask of ones."""
    return x, torch.ones_like(x)


@meaning("relax.nn.batch_flatten")
def batch_flatten(_call: Call, x: Tensor) -> Tensor:
    """All axes but the first become one."""
    return x.reshape(x.shape[0], -1)


@meaning("relax.nn.pixel_shuffle")
def pixel_shuffle(call: Call, x: Tensor) -> Tensor:
    """[N, C r², H, W] to [N, C, H r, W r]."""
    return F.pixel_shuffle(x, int(call.attrs.upscale_factor))


@meaning("relax.nn.pad")
def pad(call: Call, x: Tensor) -> Tensor:
    """Pad any axis: constant, reflect, replicate (edge) or circular. Negative widths crop."""
    widths = ints(call.attrs.pad_width)
    mode = str(call.attrs.pad_mode)
    if mode == "constant":
        flat = [w for axis in reversed(range(x.dim())) for w in widths[2 * axis : 2 * axis + 2]]
        value = call.attrs.pad_value
        return F.pad(x, flat, value=int(value) if is_integer(x) else float(value))
    for axis in range(x.dim()):
        before, after = widths[2 * axis : 2 * axis + 2]
        if before or after:
            x = torch.index_select(x, axis, _pad_sources(x.shape[axis], before, after, mode, x))
    return x


def _pad_sources(size: int, before: int, after: int, mode: str, like: Tensor) -> Tensor:
    """For every element of a padded axis, the element that it copies."""
    positions = torch.arange(-before, size + after, device=like.device)
    if mode in ("replicate", "edge"):
        return positions.clamp(0, size - 1)
    if mode in ("circular", "wrap"):
        return positions.remainder(size)
    if mode == "reflect":
        period = max(2 * (size - 1), 1)
        folded = positions.remainder(period)
        return torch.minimum(folded, (period - folded).clamp(max=size - 1).clamp(min=0)).clamp(
            max=size - 1
        )
    raise FewbitsError("unsupported-attribute", f"padding mode {mode} is unknown")


@meaning("relax.nn.attention", "relax.nn.attention_bias")
def attention(
    call: Call, query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None = None
) -> Tensor:
    """Scaled dot-product attention; [batch, sequence, head, feature], grouped heads allowed."""
    attrs = call.attrs
    if attrs.window_size is not None:
        raise FewbitsError("unsupported-attribute", "attention with a window has no meaning here")
    group = query.shape[2] // key.shape[2]
    q = query.permute(0, 2, 1, 3)
    k = key.permute(0, 2, 3, 1).repeat_interleave(group, 1)
    v = value.permute(0, 2, 1, 3).repeat_interleave(group, 1)
    scale = float(attrs.scale) if attrs.scale is not None else 1 / math.sqrt(query.shape[-1])
    scores = torch.matmul(q, k) * scale
    if bias is not None:
        scores = scores + bias
    if attrs.causal_mask is not None:
        rows, columns = scores.shape[-2:]
        offset = columns - rows if str(attrs.causal_mask) == "BottomRight" else 0
        visible = torch.ones(rows, columns, dtype=torch.bool, device=query.device).tril(offset)
        scores = torch.where(visible, scores, float("-inf"))
    return torch.matmul(torch.softmax(scores, -1), v).permute(0, 2, 1, 3)
