"""Zeros in vectors along the outputs: what tensor cores can skip without losing their shape."""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from ..errors import FewbitsError
from .sparsity import Arrays, Mask, Rows, Shape, Sparsity


@dataclasses.dataclass(frozen=True)
class Vectors(Sparsity):
    """``8x1``: neighbours along the first axis are stored together (Magicube, spec 14).

    The first axis falls into vector rows of `length`, the last of which may be shorter. What is
    stored of a vector row is the same in all its rows: whole columns of it. Values follow each
    other in C order as with every sparsity. ``columns`` are uint16 (uint32 where rows are longer
    than 65,536), ``ends`` uint32 per vector row.

    Attributes:
        length: 2, 4 or 8.
        share: of the vectors that pruning makes zero (``8x1@0.9``); None as a way of storing.
    """

    length: int = 8
    share: float | None = None

    def __post_init__(self) -> None:
        if self.length not in (2, 4, 8):
            raise FewbitsError("bad-sparsity", f"vectors have 2, 4 or 8 values, not {self.length}")
        if self.share is not None and not 0 <= self.share < 1:
            raise FewbitsError(
                "bad-sparsity", f"the share of zeros is at least 0 and below 1, not {self.share}"
            )

    @property
    def name(self) -> str:
        """``8x1``, or ``8x1@0.9``."""
        return f"{self.length}x1" + ("" if self.share is None else f"@{self.share:g}")

    def complete(self, mask: Mask) -> Mask:
        """All of a vector where any of it is kept."""
        rows, length = _vectors_of(mask.shape)
        flat = mask.reshape(rows, length)
        return np.repeat(self._any(flat), self.length, axis=0)[:rows].reshape(mask.shape)

    def describe(self, mask: Mask) -> Arrays:
        """``columns`` of the kept vectors and the running count at each vector row's end."""
        rows, length = _vectors_of(mask.shape)
        kept = self._any(mask.reshape(rows, length))
        dtype = np.uint16 if length <= 1 << 16 else np.uint32
        return {
            "columns": np.nonzero(kept)[1].astype(dtype),
            "ends": np.cumsum(kept.sum(axis=1)).astype(np.uint32),
        }

    def restore(self, arrays: Arrays, shape: Shape) -> Mask:
        """The mask; ends must not descend and columns must ascend within their vector row."""
        rows, length = _vectors_of(shape)
        blocks = -(-rows // self.length)
        kept = Rows().restore(arrays, (blocks, length))
        return np.repeat(kept, self.length, axis=0)[:rows].reshape(shape)

    def metadata_bits(self, arrays: Arrays, shape: Shape) -> int:
        """Of columns and ends as stored."""
        return 8 * (arrays["columns"].nbytes + arrays["ends"].nbytes)

    def _any(self, flat: Mask) -> Mask:
        """[vector rows, columns]: where a vector keeps anything."""
        filled = np.pad(flat, ((0, -len(flat) % self.length), (0, 0)))
        return np.logical_or.reduce(filled.reshape(-1, self.length, flat.shape[1]), axis=1)


def _vectors_of(shape: Shape) -> tuple[int, int]:
    """The first axis, and all others as one."""
    return (shape[0], math.prod(shape[1:])) if shape else (1, 1)
