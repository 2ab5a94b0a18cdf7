"""Rounding torch tensors to a number format's levels, equal to `NumberFormat.encode` to the bit.

The formats themselves are numpy; activations are torch, often under `torch.vmap`, so the nearest
level is found here by a search in the same thresholds.
"""

from __future__ import annotations

import functools

import numpy as np
import torch

from ...formats.base import NumberFormat
from ...formats.integer import Integer
from ...formats.parse import parse_format


@functools.lru_cache(maxsize=256)
def levels_and_thresholds(name: str) -> tuple[torch.Tensor, torch.Tensor]:
    """float32 levels [n], and the largest float32 that still rounds to each [n - 1].

    A float32 exceeds a float64 threshold just when it exceeds the next float32 below it, so the
    search needs no float64.
    """
    number_format = parse_format(name)
    levels = number_format.levels()
    middles = levels[:-1] + (levels[1:] - levels[:-1]) / 2
    # By value: formats with signed zeros have two codes for the level 0.
    goes_up = number_format.round(middles) == levels[1:].astype(np.float32)
    thresholds = np.where(goes_up, np.nextafter(middles, -np.inf), middles)
    narrow = thresholds.astype(np.float32)
    above = narrow.astype(np.float64) > thresholds
    narrow = np.where(above, np.nextafter(narrow, np.float32(-np.inf)), narrow)
    return torch.from_numpy(levels.astype(np.float32)), torch.from_numpy(narrow)


def round_to(number_format: NumberFormat, x: torch.Tensor) -> torch.Tensor:
    """`x`, float32 and already divided by its scale, at the nearest levels; ties to even codes."""
    if isinstance(number_format, Integer):
        return torch.round(x).clamp(number_format.minimum, number_format.maximum)
    levels, thresholds = levels_and_thresholds(number_format.name)
    index = torch.bucketize(x.contiguous(), thresholds.to(x.device))
    return levels.to(x.device)[index]
