"""Solvers work on matrices; layers want their own shape, and grouped convolutions one weight."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from ...errors import FewbitsError
from ...formats.compressed import CompressedTensor
from ...formats.granularity import Granularity, PerBlock, PerChannel, PerGroup, PerTensor
from ...formats.plain import PlainTensor, StoredTensor
from ...formats.scales import StoredScales
from ...formats.sparsity import Bitmap, Dense
from ..layers import Layer

_FLAT = (Dense, Bitmap)


def as_layer(stored: StoredTensor, layer: Layer) -> StoredTensor:
    """A solved matrix in its layer's shape, where that is the same to the last bit.

    Groups and n:m patterns run along the whole sum of a convolution, across its axes: such a
    weight stays a matrix, and the module reshapes it.
    """
    if stored.shape == layer.shape or not isinstance(stored.sparsity, _FLAT):
        return stored
    if isinstance(stored, CompressedTensor) and not (
        isinstance(stored.granularity, PerTensor | PerBlock) or stored.granularity == PerChannel(0)
    ):
        return stored
    return dataclasses.replace(stored, shape=layer.shape)


def stack(parts: Sequence[StoredTensor]) -> StoredTensor:
    """Matrices under each other as one, no value changed.

    Raises:
        FewbitsError: ``bad-granularity`` where their scales do not stand side by side.
    """
    first = parts[0]
    if len(parts) == 1:
        return first
    mask = np.concatenate([part.mask() for part in parts])
    if isinstance(first, PlainTensor):
        values = np.concatenate([part.decode() for part in parts])
        return PlainTensor.from_array(values, first.dtype, first.sparsity, mask)
    tensors = [part for part in parts if isinstance(part, CompressedTensor)]
    if not _by_row(first.granularity) or first.scales.storage == "double":
        raise FewbitsError(
            "bad-granularity",
            f"a grouped convolution is solved group by group, which {first.granularity} with "
            f"scales in {first.scales.storage} does not allow",
            hint="strategy channel or group, or solver rtn or mse, for this layer (`overrides`)",
        )
    arrays = [tensor.scales.arrays["scales"] for tensor in tensors]
    joined = np.concatenate(arrays)
    zeros = [tensor.zero_points for tensor in tensors if tensor.zero_points is not None]
    return CompressedTensor.from_codes(
        np.concatenate([tensor.codes() for tensor in tensors]),
        first.number_format,
        first.granularity,
        StoredScales(first.scales.storage, joined.shape, {"scales": joined}),
        sparsity=first.sparsity,
        mask=None if isinstance(first.sparsity, Dense) else mask,
        zero_points=np.concatenate(zeros) if zeros else None,
    )


def _by_row(granularity: Granularity) -> bool:
    """Whether no scale belongs to more than one row of a matrix."""
    if isinstance(granularity, PerGroup):
        return granularity.axis in (1, -1)
    return granularity == PerChannel(0)
