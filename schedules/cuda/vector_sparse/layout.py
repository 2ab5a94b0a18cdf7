"""SR-BCRS: column vectors of a sparse matrix in the order of tensor cores (Magicube, spec 14).

Rows fall into vector rows of 2, 4 or 8. What is stored is a vector: a column's values in one vector
row. The vectors of a vector row are filled up to whole strides of 32, as many as a product takes
along its sum; within a stride values lie row by row, so that a lane's word is four successive
vectors of one row.
"""

from __future__ import annotations

import dataclasses

import numpy as np

#: Vectors of a stride: bytes that one product takes along K.
STRIDE = 32

LENGTHS = (2, 4, 8)


@dataclasses.dataclass(frozen=True, eq=False)
class SrBcrs:
    """A sparse matrix [rows, columns] of integers.

    Attributes:
        shape: of the matrix.
        length: rows of a vector: 2, 4 or 8.
        ranges: int32 [2 · vector rows]: where each one's vectors start, and where they end;
            what fills up the last stride is behind the end.
        columns: int32 [vectors, filled up]: of each vector, -1 where it only fills up.
        values: int64 [strides, length, 32].
    """

    shape: tuple[int, int]
    length: int
    ranges: np.ndarray
    columns: np.ndarray
    values: np.ndarray

    @staticmethod
    def of(matrix: np.ndarray, length: int) -> SrBcrs:
        """The vectors of a matrix that are not all zero.

        Rows that do not fill the last vector row are zero.

        Raises:
            ValueError: there are no vectors of such a length.
        """
        if length not in LENGTHS:
            raise ValueError(f"vectors of {length} rows, not {LENGTHS}")
        rows, columns = matrix.shape
        filled = np.pad(matrix.astype(np.int64), ((0, -rows % length), (0, 0)))
        blocks = filled.reshape(-1, length, columns)
        ranges, places, values, start = [], [], [], 0
        for block in blocks:
            kept = np.flatnonzero(block.any(axis=0))
            more = -len(kept) % STRIDE
            ranges += [start, start + len(kept)]
            start += len(kept) + more
            places.append(np.pad(kept, (0, more), constant_values=-1))
            vectors = np.pad(block[:, kept], ((0, 0), (0, more)))
            values.append(vectors.reshape(length, -1, STRIDE).transpose(1, 0, 2))
        return SrBcrs(
            (rows, columns),
            length,
            np.array(ranges, np.int32),
            np.concatenate([*places, np.zeros(0)]).astype(np.int32),
            np.concatenate([*values, np.zeros((0, length, STRIDE), np.int64)]),
        )

    def dense(self) -> np.ndarray:
        """The matrix, int64."""
        rows, columns = self.shape
        found = np.zeros((-(-rows // self.length), self.length, columns), np.int64)
        vectors = self.values.transpose(0, 2, 1).reshape(-1, self.length)
        for place, (start, end) in enumerate(self.ranges.reshape(-1, 2)):
            found[place][:, self.columns[start:end]] = vectors[start:end].T
        return found.reshape(-1, columns)[:rows]

    @property
    def strides(self) -> int:
        """Strides of all vector rows."""
        return len(self.values)


def digits_of(bits: int) -> int:
    """Bytes that an integer of 4, 8, 12 or 16 bits takes; all but the top one have no sign."""
    return -(-bits // 8)


def digits(values: np.ndarray, bits: int) -> np.ndarray:
    """uint8 [digits, ...]: the integers as sums of bytes times powers of 256, lowest first.

    Raises:
        ValueError: an integer has more bits.
    """
    values = np.asarray(values, np.int64)
    limit = 1 << (bits - 1)
    if values.size and not (-limit <= values.min() and values.max() < limit):
        raise ValueError(f"not all are integers of {bits} bits")
    return np.stack([values >> 8 * d & 255 for d in range(digits_of(bits))]).astype(np.uint8)
