"""The stored form of a 2:4 sparse weight, one for ``mma.sp`` and ``wgmma.sp``.

The weight is the instructions' sparse operand, so outputs are their rows. A piece is 64 outputs by
128 bytes along K of what K has in x: 4096 bytes of kept elements, then the metadata, so that one
copy of contiguous bytes fetches what 64 outputs need of a step. Kept elements lie in core matrices
of eight rows of 16 bytes, the four along K first: ``ldmatrix`` reads them without bank conflicts,
and ``wgmma`` finds them by a descriptor without swizzle. Metadata lie as lanes' registers have
them: for every 16 outputs 32 lanes, each with one word for every 64 elements of K. (With 16 bits,
both products of a step share a word, and the selector says whose lanes have it.)
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import ml_dtypes
import numpy as np

from ....errors import FewbitsError
from ..intrinsics.sparsity import Sparsity
from ..weight_format import Array, WeightFormat

#: Outputs of a piece, and bytes along K of x in a step.
OUTPUTS, STEP = 64, 128

#: Bytes of a piece's kept elements.
VALUES = OUTPUTS * STEP // 2

#: Instructions along K in a step: each takes 64 bytes of x.
PRODUCTS = 2

_TILES, _ROWS, _LANES = 4, 16, 32

_NUMPY: dict[str, Any] = {
    "int8": np.int8,
    "float16": np.float16,
    "bfloat16": ml_dtypes.bfloat16,
    "float8_e4m3fn": ml_dtypes.float8_e4m3fn,
    "float8_e5m2": ml_dtypes.float8_e5m2,
}


@dataclasses.dataclass(frozen=True)
class Sparse24(WeightFormat):
    """Two of every four neighbours along K, at most, are not zero; only two are stored.

    `pack` takes an array [N, K] of `dtype` (FP8 and bfloat16 as ml_dtypes has them). N and K may be
    anything: pieces are filled up with zeros.

    Attributes:
        dtype: of the elements: ``int8``, ``float16``, ``bfloat16``, ``float8_e4m3fn`` or
            ``float8_e5m2``.
    """

    dtype: str

    @property
    def key(self) -> str:
        """``sparse24-int8``."""
        return f"sparse24-{self.dtype}"

    @property
    def item(self) -> int:
        """Bytes of an element."""
        return np.dtype(_NUMPY[self.dtype]).itemsize

    @property
    def words(self) -> int:
        """Metadata words of a lane in a step: 2 with one-byte elements, 1 with two-byte ones."""
        return PRODUCTS // self.item

    @property
    def metadata_bytes(self) -> int:
        """Of a piece."""
        return _TILES * _LANES * self.words * 4

    @property
    def piece_bytes(self) -> int:
        """Kept elements and metadata of a piece."""
        return VALUES + self.metadata_bytes

    @functools.cached_property
    def _form(self) -> Sparsity:
        """One instruction's sparsity: 64 bytes of x."""
        return Sparsity(8 * self.item, STEP // PRODUCTS // self.item)

    def pieces(self, outputs: int, inputs: int) -> tuple[int, int]:
        """How many pieces there are down, and steps along K."""
        return -(-outputs // OUTPUTS), -(-inputs * self.item // STEP)

    def arrays(self, outputs: int, inputs: int) -> tuple[Array, ...]:
        """One: the pieces, uint32 [pieces down, steps, words]."""
        shape = (*self.pieces(outputs, inputs), self.piece_bytes // 4)
        return (Array("weight", shape, "uint32"),)

    def pack(self, weight: Any) -> Sequence[np.ndarray]:
        """The pieces of a matrix.

        Raises:
            FewbitsError: ``no-layout``: more than two of four neighbours are not zero.
        """
        weight = np.asarray(weight, _NUMPY[self.dtype])
        if not fits(weight):
            raise FewbitsError(
                "no-layout", "more than two of four neighbouring weights are not zero"
            )
        outputs, inputs = weight.shape
        down, steps = self.pieces(outputs, inputs)
        bits = np.zeros((down * OUTPUTS, steps * STEP // self.item), f"uint{8 * self.item}")
        used = np.where(weight != 0, weight, np.zeros((), weight.dtype))
        bits[:outputs, :inputs] = np.ascontiguousarray(used).view(bits.dtype)
        kept, codes = self._form.compress(bits)
        cores = np.ascontiguousarray(kept).view(np.uint8).reshape(down, 8, 8, steps, 4, 16)
        values = cores.transpose(0, 3, 1, 4, 2, 5).reshape(down, steps, VALUES)
        metadata = self.registers(codes.reshape(down, _TILES, _ROWS, steps, PRODUCTS, -1))
        whole = np.concatenate([values.view("<u4"), metadata.reshape(down, steps, -1)], axis=2)
        return (np.ascontiguousarray(whole, np.uint32),)

    def decoded(self, arrays: Sequence[np.ndarray], outputs: int, inputs: int) -> np.ndarray:
        """The matrix as float64, zeros where nothing is kept."""
        down, steps = self.pieces(outputs, inputs)
        whole = arrays[0].reshape(down, steps, -1)
        cores = np.ascontiguousarray(whole[:, :, : VALUES // 4]).view(np.uint8)
        cores = cores.reshape(down, steps, 8, 4, 8, 16).transpose(0, 2, 4, 1, 3, 5)
        kept = np.ascontiguousarray(cores).reshape(down * OUTPUTS, -1).view(_NUMPY[self.dtype])
        codes = self.codes(whole[:, :, VALUES // 4 :]).reshape(down * OUTPUTS, -1)
        dense = np.zeros((*codes.shape, 4), np.float64)
        pairs = kept.reshape(*codes.shape, 2).astype(np.float64)
        for place, index in enumerate((codes & 3, codes >> 2)):
            chosen = index[..., None].astype(np.int64)
            np.put_along_axis(dense, chosen, pairs[..., place : place + 1], axis=2)
        return dense.reshape(down * OUTPUTS, -1)[:outputs, :inputs]

    def _holders(self) -> list[tuple[int, np.ndarray, np.ndarray]]:
        """For each product of a step: its word, and lane and shift of each chunk [16, chunks]."""
        lane, shift = self._form.holders()
        apart = 4 // self._form.selectors
        if self.words == PRODUCTS:
            return [(number, lane, shift) for number in range(PRODUCTS)]
        return [(0, lane + number * apart, shift) for number in range(PRODUCTS)]

    def registers(self, codes: np.ndarray) -> np.ndarray:
        """uint32 [down, steps, tiles, lanes, words]; codes [down, tiles, 16, steps, 2, chunks]."""
        down, tiles, rows, steps, _, chunks = codes.shape
        registers = np.zeros((down, steps, tiles, _LANES, self.words), np.uint32)
        for number, (word, lane, shift) in enumerate(self._holders()):
            for row in range(rows):
                for chunk in range(chunks):
                    bits = codes[:, :, row, :, number, chunk].astype(np.uint32)
                    bits = bits.transpose(0, 2, 1) << np.uint32(shift[row, chunk])
                    registers[..., lane[row, chunk], word] |= bits
        return registers

    def codes(self, words: np.ndarray) -> np.ndarray:
        """The inverse: codes [down, tiles, 16, steps, 2, chunks]."""
        down, steps, _ = words.shape
        registers = words.reshape(down, steps, _TILES, _LANES, self.words)
        chunks = self._form.k // self._form.chunk
        codes = np.zeros((down, _TILES, _ROWS, steps, PRODUCTS, chunks), np.uint8)
        for number, (word, lane, shift) in enumerate(self._holders()):
            for row in range(_ROWS):
                for chunk in range(chunks):
                    bits = registers[..., lane[row, chunk], word] >> np.uint32(shift[row, chunk])
                    codes[:, :, row, :, number, chunk] = (bits & 15).transpose(0, 2, 1)
        return codes


def fits(weight: np.ndarray) -> bool:
    """Whether at most two of any four neighbours along K are not zero.

    So 2:4 does, and so do 1:4 and whatever else keeps no more, e.g. 4:8 with two in each half.

    Args:
        weight: [N, K] of any dtype.
    """
    used = weight != 0
    rest = -used.shape[1] % 4
    groups = np.pad(used, ((0, 0), (0, rest))).reshape(used.shape[0], -1, 4)
    return bool((groups.sum(axis=2) <= 2).all())
