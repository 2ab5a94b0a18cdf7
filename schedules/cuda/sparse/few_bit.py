"""The stored form of a weight that is both 2:4 sparse and of few bits.

Kept codes of an output are a dense row of half the length, and ``mma.sp`` holds kept elements in
registers as ``mma`` holds dense ones: so kept codes are stored as `FewBit`, with groups of half as
many, and are decoded by the same instructions. Metadata lie beside them, as lanes read them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from ....errors import FewbitsError
from ....formats.compressed import CompressedTensor
from ....formats.granularity import PerChannel, PerGroup, PerTensor
from ....formats.sparsity import Dense, NofM
from ..weight_format import Array, WeightFormat
from ..weight_only import FewBit, few_bit
from ..weight_only.planes import CHUNK, LANES, TILE, padded
from .layout import OUTPUTS, PRODUCTS, Sparse24

#: Of 16 bits' metadata: they do not depend on what is kept.
_METADATA = Sparse24("float16")

#: Metadata words of a lane for a chunk, 128 of K.
WORDS = 2


@dataclasses.dataclass(frozen=True)
class SparseFewBit(WeightFormat):
    """Codes of a number format for two of four neighbours along K.

    `pack` takes a `CompressedTensor` [outputs, inputs] that `of` gives this layout for.

    Attributes:
        kept: the layout of the kept codes [outputs, inputs / 2].
    """

    kept: FewBit

    @staticmethod
    def refusal(tensor: CompressedTensor) -> str | None:
        """Why there is no such layout for a tensor, or None."""
        if tensor.sparsity != NofM(2, 4) or len(tensor.shape) != 2:
            return f"a {tensor.sparsity} weight of shape {tensor.shape} is no 2:4 matrix"
        granularity = tensor.granularity
        if isinstance(granularity, PerGroup):
            if granularity.axis not in (1, -1) or granularity.size % 4:
                return f"scales per {granularity} are none of a group of kept codes"
        elif not isinstance(granularity, (PerTensor, PerChannel)):
            return f"scales per {granularity} are no factor of an output"
        reason = few_bit.refusal(_kept(tensor))
        if reason is None and FewBit.of(_kept(tensor)).has_table:
            return "levels of more than 4 bits are looked up, which these kernels do not"
        return reason

    @staticmethod
    def of(tensor: CompressedTensor) -> SparseFewBit:
        """The layout of a tensor.

        Raises:
            FewbitsError: ``no-layout`` where there is none, with the reason.
        """
        reason = SparseFewBit.refusal(tensor)
        if reason is not None:
            raise FewbitsError("no-layout", reason, hint="the tensor can be decoded to float16")
        return SparseFewBit(FewBit.of(_kept(tensor)))

    @property
    def key(self) -> str:
        """``sparse24-few-bit-int4-g64-float16``: groups are counted in kept codes."""
        return f"sparse24-{self.kept.key}"

    def arrays(self, outputs: int, inputs: int) -> tuple[Array, ...]:
        """Those of the kept codes, then metadata [tiles, chunks, 32, 2]."""
        rows, columns = padded(outputs, inputs // 2)
        shape = (rows // TILE, columns // CHUNK, LANES, WORDS)
        return (*self.kept.arrays(outputs, inputs // 2), Array("metadata", shape, "uint32"))

    def pack(self, weight: Any) -> Sequence[np.ndarray]:
        """The arrays of a `CompressedTensor`.

        Raises:
            FewbitsError: ``no-layout`` for other tensors; what `FewBit.pack` raises.
        """
        tensor: CompressedTensor = weight
        SparseFewBit.of(tensor)
        outputs, inputs = tensor.shape
        rows, columns = padded(outputs, inputs // 2)
        places = np.nonzero(tensor.mask().reshape(-1, 4))[1].reshape(outputs, inputs // 4, 2)
        down = -(-rows // OUTPUTS)
        # Indices ascend everywhere, also where nothing is kept.
        codes = np.full((down * OUTPUTS, columns // 2), 0 | 1 << 2, np.uint8)
        codes[:outputs, : inputs // 4] = places[..., 0] | places[..., 1] << 2
        chunks = columns // CHUNK
        split = codes.reshape(down, OUTPUTS // TILE, TILE, WORDS * chunks, PRODUCTS, -1)
        words = _METADATA.registers(split).reshape(down, chunks, WORDS, OUTPUTS // TILE, LANES)
        ordered = words.transpose(0, 3, 1, 4, 2).reshape(-1, chunks, LANES, WORDS)
        metadata = np.ascontiguousarray(ordered[: rows // TILE])
        return [*self.kept.pack(_kept(tensor)), metadata]

    def decoded(self, arrays: Sequence[np.ndarray], outputs: int, inputs: int) -> np.ndarray:
        """float64 [outputs, inputs], zeros where nothing is kept."""
        *kept, metadata = arrays
        values = self.kept.decoded(kept, outputs, inputs // 2).reshape(outputs, -1, 2)
        tiles, chunks = metadata.shape[:2]
        down = -(-tiles // (OUTPUTS // TILE))
        whole = np.zeros((down * (OUTPUTS // TILE), chunks, LANES, WORDS), np.uint32)
        whole[:tiles] = metadata
        split = whole.reshape(down, OUTPUTS // TILE, chunks, LANES, WORDS)
        words = split.transpose(0, 2, 4, 1, 3).reshape(down, chunks * WORDS, -1)
        codes = _METADATA.codes(words).reshape(down * OUTPUTS, -1)[:outputs, : inputs // 4]
        dense = np.zeros((outputs, inputs // 4, 4), np.float64)
        for place, index in enumerate((codes & 3, codes >> 2)):
            chosen = index[..., None].astype(np.int64)
            np.put_along_axis(dense, chosen, values[..., place : place + 1], axis=2)
        return dense.reshape(outputs, inputs)


def _kept(tensor: CompressedTensor) -> CompressedTensor:
    """The kept codes as a dense tensor of half the inputs; its groups are of half the size."""
    outputs, inputs = tensor.shape
    granularity = tensor.granularity
    if isinstance(granularity, PerGroup):
        granularity = dataclasses.replace(granularity, size=granularity.size // 2)
    return dataclasses.replace(
        tensor,
        shape=(outputs, inputs // 2),
        granularity=granularity,
        sparsity=Dense(),
        places={},
    )
