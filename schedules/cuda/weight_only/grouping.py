"""What scales and zero points of a compressed tensor mean for kernels: a value per group of inputs.

Every granularity that gives an output, or neighbouring inputs of it, one scale comes down to
[outputs, groups]; what does not is refused with a sentence.
"""

from __future__ import annotations

import math

import numpy as np

from ....formats.compressed import CompressedTensor
from ....formats.granularity import PerBlock, PerChannel, PerGroup, PerTensor
from ....formats.sparsity import Dense
from .planes import CHUNK, TILE

# What `StoredScales.values` gives for a scale of 0.
_NOTHING = 2.0**-126


def refusal(tensor: CompressedTensor) -> str | None:
    """Why there is no layout for a tensor, or None."""
    if len(tensor.shape) != 2:
        return f"a weight has outputs and inputs, not the shape {tensor.shape}"
    if 0 in tensor.shape:
        return "a weight without elements needs no kernel"
    if not 2 <= tensor.number_format.bits <= 8:
        return f"codes of {tensor.number_format.bits} bits have a layout of their own"
    if tensor.number_format.name.startswith("bcq"):
        return "binary coding has a scale per plane, and kernels of its own"
    if not isinstance(tensor.sparsity, Dense):
        return f"a {tensor.sparsity.name} weight does not store every code"
    granularity, inputs = tensor.granularity, tensor.shape[1]
    if isinstance(granularity, PerTensor):
        return None
    if isinstance(granularity, PerChannel):
        inside = granularity.axis in (0, -2)
        return None if inside else "scales per input are no factor of an output"
    if isinstance(granularity, PerGroup) and granularity.axis in (1, -1):
        size = granularity.size
        if size % TILE and size < inputs:
            return f"groups of {size} inputs are no multiple of 16"
        return None
    if isinstance(granularity, PerBlock):
        size = granularity.size
        if size % inputs and (inputs % size or size % TILE):
            return f"blocks of {size} do not divide rows of {inputs} into multiples of 16"
        return None
    return f"scales per {granularity} are no factor of an output or of a group of inputs"


def group_of(tensor: CompressedTensor) -> int | None:
    """Inputs that share a scale, as kernels count them, or None where all do."""
    size = getattr(tensor.granularity, "size", None)
    if size is None or size >= tensor.shape[1]:
        return None
    return size if size % CHUNK == 0 else math.gcd(size, CHUNK)


def scales_of(tensor: CompressedTensor, group: int | None) -> np.ndarray:
    """float64 [outputs, groups]; 0 where a group has nothing but zeros."""
    scales = expanded_of(tensor, tensor.scales.values().astype(np.float64), group)
    return np.where(scales > _NOTHING, scales, 0.0)


def expanded_of(tensor: CompressedTensor, values: np.ndarray, group: int | None) -> np.ndarray:
    """What scales have, [outputs, groups of `group` inputs]."""
    outputs, inputs = tensor.shape
    size: int | None = getattr(tensor.granularity, "size", None)
    if isinstance(tensor.granularity, PerTensor):
        return np.full((outputs, 1), values)
    if isinstance(tensor.granularity, PerChannel) or size is None:
        return values.reshape(outputs, 1)
    if isinstance(tensor.granularity, PerBlock) and size >= inputs:
        return np.repeat(values, size // inputs)[:outputs, None]
    values = values.reshape(outputs, -1)
    if group is None:
        return values
    return np.repeat(values, size // group, axis=1)[:, : -(-inputs // group)]


def relative_of(scales: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Scales over a power of two per output that puts the largest below 1, and those powers.

    With one scale an output, the scale itself is the factor.
    """
    if scales.shape[1] == 1:
        return np.ones_like(scales), scales[:, 0]
    powers = np.exp2(np.frexp(scales.max(axis=1))[1].astype(np.float64))
    return scales / powers[:, None], powers
