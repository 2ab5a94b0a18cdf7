"""Swizzled shared memory: where TMA puts bytes and where ``wgmma`` looks for them.

A swizzle lets the 16-byte chunks of a span of 32, 64 or 128 bytes change places by the row they are
in, so that a column of chunks touches all banks. It is a function of the address's bits, so a
matrix's start may move inside the pattern. (PTX manual, "Tensor swizzling modes", "Canonical
Layouts", "Matrix Descriptor Format"; CuTe writes it ``Swizzle<b, 4, 3>``.)
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

#: The descriptor's field by span in bytes; 16 is no swizzle.
_MODES = {16: 0, 128: 1, 64: 2, 32: 3}

#: cuda.h's CUtensorMapSwizzle by span in bytes.
TENSOR_MAP_SWIZZLES = {16: 0, 32: 1, 64: 2, 128: 3}


def swizzle(address: Any, span: int) -> Any:
    """Where the byte at an address goes: ``Swizzle<log2(span / 16), 4, 3>`` on byte addresses.

    Args:
        address: shared-memory addresses, numbers or integer arrays.
        span: 16 (no swizzle), 32, 64 or 128 bytes.
    """
    chosen = (span // 16 - 1) << 7  # the bits that say which row of the pattern
    return address ^ ((address & chosen) >> 3)


@dataclasses.dataclass(frozen=True)
class Descriptor:
    """A matrix in shared memory as ``wgmma`` takes it.

    Attributes:
        start: shared address of the first element, a multiple of 16.
        leading: leading dimension byte offset. K-major: from a 16-byte column to the next (without
            swizzle; else unused). MN-major: from a span of rows to the next, or, without swizzle,
            from eight places of k to the next eight.
        stride: stride dimension byte offset. K-major: from eight rows to the next eight. MN-major:
            from eight places of k to the next eight, or, without swizzle, from 16 bytes of rows to
            the next.
        span: of the swizzle in bytes; 16 for none.
        base: which 128 bytes of a kilobyte the pattern starts with, where not with the first.
    """

    start: int
    leading: int
    stride: int
    span: int = 128
    base: int = 0

    def encode(self) -> int:
        """The 64-bit operand."""
        fields = [(value & 0x3FFFF) >> 4 for value in (self.start, self.leading, self.stride)]
        start, leading, stride = fields
        mode = _MODES[self.span]
        return start | leading << 16 | stride << 32 | self.base << 49 | mode << 62

    def addresses(self, rows: int, k: int, element: int, mn_major: bool = False) -> np.ndarray:
        """Shared addresses int64 [rows, k] of the elements of `element` bytes.

        The canonical layouts, in units of 16 bytes; then the swizzle.
        """
        unit = 16 // element
        row, column = np.meshgrid(np.arange(rows), np.arange(k), indexing="ij")
        chunks = self.span // 16
        if mn_major:  # ((T, chunks, m), (8, k))
            inner, block = row % unit, row // unit
            steps = (self.stride, self.leading) if chunks == 1 else (self.leading, self.stride)
            offset = inner * element + block % chunks * 16 + block // chunks * steps[0]
            offset += column % 8 * self.span + column // 8 * steps[1]
        else:  # ((8, m), (T, 2 k))
            inner, block = column % unit, column // unit
            step = self.leading if chunks == 1 else 16
            offset = row % 8 * self.span + row // 8 * self.stride + inner * element + block * step
        return swizzle(self.start + offset - 128 * self.base, self.span) + 128 * self.base
