"""2:4 sparsity as ``mma.sp`` and ``wgmma.mma_async.sp`` want it: kept elements and metadata.

A row of A is cut in chunks, of which half the elements are kept: 2 of 4 (8 and 16 bits), 4 of 8 in
neighbouring pairs (4 bits), 1 of 2 (tf32). Four bits for each chunk say which; they lie in
registers of some lanes. (PTX manual, "Sparse matrix storage" and the figures of metadata;
CUTLASS's ``ELayout_64x16``, ``_64x32`` and ``_64x64`` state the same for wgmma.)
"""

from __future__ import annotations

import dataclasses

import numpy as np

#: tf32 has one index for both 16-bit halves of the kept element, by its place in the pair.
_TF32_CODES = (0x4, 0xE)


@dataclasses.dataclass(frozen=True)
class Sparsity:
    """One instruction's sparsity.

    Attributes:
        bits: of an element of A: 4, 8, 16 or 32 (tf32).
        k: columns of A before elements were left out.
    """

    bits: int
    k: int

    @property
    def chunk(self) -> int:
        """Elements of a chunk."""
        return {4: 8, 8: 4, 16: 4, 32: 2}[self.bits]

    @property
    def selectors(self) -> int:
        """Values that the sparsity selector may have: 4, 2 or 1."""
        return 4 // (self.k // self.chunk // 4)

    def holders(self) -> tuple[np.ndarray, np.ndarray]:
        """Lane (for selector 0) and lowest bit, int64 [16, chunks], of each chunk's four bits.

        A selector moves them by ``4 / selectors`` lanes each.
        """
        row, chunk = np.meshgrid(np.arange(16), np.arange(self.k // self.chunk), indexing="ij")
        group, half = row % 8, row // 8
        if self.bits >= 16:  # one lane: both rows, four chunks each
            return 4 * group + chunk // 4, 16 * half + 4 * (chunk % 4)
        return 4 * group + 2 * (chunk // 8) + half, 4 * (chunk % 8)  # one lane: one row

    def metadata(self, codes: np.ndarray, selector: int = 0) -> np.ndarray:
        """The metadata register uint32 [32] of codes [16, chunks]; other lanes' are zero.

        Raises:
            ValueError: the selector is not one of this shape.
        """
        if not 0 <= selector < self.selectors:
            raise ValueError(f"selector {selector}, not below {self.selectors}")
        lane, shift = self.holders()
        register = np.zeros(32, np.uint32)
        bits = codes.astype(np.uint32) << shift.astype(np.uint32)
        np.bitwise_or.at(register, lane + selector * (4 // self.selectors), bits)
        return register

    def compress(self, matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Kept elements [rows, k / 2] and codes uint8 [rows, chunks] of a sparse matrix [rows, k].

        Codes are in ascending order, as ``mma.sp::ordered_metadata`` demands. k may be any number
        of chunks here.

        Raises:
            ValueError: a chunk has too many elements that are not zero.
        """
        rows = matrix.shape[0]
        pair = 2 if self.bits == 4 else 1
        cells = matrix.reshape(rows, -1, self.chunk // pair, pair)
        keep = cells.shape[2] // 2
        used = (cells != 0).any(axis=3)
        if (used.sum(axis=2) > keep).any():
            raise ValueError("more than half of a chunk is not zero")
        # Those in use first, each group in its order; then the kept ones in ascending order.
        order = np.sort(np.argsort(~used, axis=2, kind="stable")[:, :, :keep], axis=2)
        kept = np.take_along_axis(cells, order[..., None], axis=2).reshape(rows, -1)
        if self.bits == 32:
            return kept, np.asarray(_TF32_CODES, np.uint8)[order[..., 0]]
        return kept, (order[..., 0] | order[..., 1] << 2).astype(np.uint8)
