"""What a convolution multiplies: patches of its input, one vector per output pixel (im2col)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F

from ..errors import FewbitsError
from ..ops.meanings.common import ints, relayout
from ..ops.meanings.convolution import spatial_padding, torch_padding
from .layers import Layer

# Floats unfolded at a time: an image becomes as many times larger as the kernel has taps.
_CHUNK = 1 << 24


def geometry(layer: Layer) -> str:
    """How a convolution reads its input: layers with equal texts see equal patches."""
    attrs: Any = layer.call.attrs
    kernel = layer.shape[2:]
    return str(
        (kernel, ints(attrs.strides), ints(attrs.padding), ints(attrs.dilation), layer.groups)
    )


def patches(layer: Layer, value: torch.Tensor) -> Iterator[list[torch.Tensor]]:
    """The vectors that a convolution multiplies, a part of the samples at a time.

    Args:
        layer: a convolution in one or two dimensions.
        value: its input, NCHW or as its layout says, with any number of axes for samples in front.

    Yields:
        A tensor ``[vectors, columns]`` for each group; columns are those of ``layer.matrix``.

    Raises:
        FewbitsError: ``unsupported-form`` for a weight that is not OIHW.
    """
    attrs: Any = layer.call.attrs
    kernel = layer.shape[2:]
    rank = len(kernel)
    space = "HW"[2 - rank :]
    if str(attrs.kernel_layout) != f"OI{space}":
        raise FewbitsError(
            "unsupported-form", f"a weight in layout {attrs.kernel_layout}", where=layer.name
        )
    x = value.reshape(-1, *value.shape[value.dim() - rank - 1 :])
    x = relayout(x, attrs.data_layout, f"NC{space}").float()
    before, after = spatial_padding(ints(attrs.padding), rank)
    x = F.pad(x, torch_padding(before, after))
    strides, dilation = ints(attrs.strides), ints(attrs.dilation)
    if rank == 1:  # torch unfolds images
        x, kernel, strides, dilation = x.unsqueeze(2), (1, *kernel), (1, *strides), (1, *dilation)
    taps = kernel[0] * kernel[1]
    at_once = max(1, _CHUNK // max(1, x[0].numel() * taps))
    for part in x.split(at_once):
        columns = F.unfold(part, kernel, dilation=dilation, stride=strides)  # [n, C * taps, pixels]
        split = columns.reshape(len(part), layer.groups, -1, columns.shape[-1])
        yield [split[:, group].transpose(1, 2).flatten(0, 1) for group in range(layer.groups)]
