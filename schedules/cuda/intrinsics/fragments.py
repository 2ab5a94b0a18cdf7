"""Which lane holds which element: the register layouts of tensor-core instructions as arrays.

Weights that kernels load straight into registers are stored in this order, so packers need the
maps, and tests of kernels need them to look into registers. They are transcribed shape by shape
from the PTX manual (sections "Matrix Fragments for mma.*", "Register Fragments" of wgmma); the
emulator's C code states the same facts by one general rule, and its tests compare the two.

A register is 32 bits of each lane. A fragment is packed as ``uint32 [registers, lanes]``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

_Formula = Callable[[Any, Any, Any], Any]


@dataclasses.dataclass(frozen=True, eq=False)
class Fragment:
    """Where the lanes of a warp (32) or of a warpgroup (128) hold a matrix.

    Attributes:
        shape: rows and columns of the matrix.
        bits: of one element: 1, 4, 8, 16, 32 or 64. An element of 64 bits takes two registers, the
            low word first.
        row: int64 [lanes, registers, parts]: the element's row. A part is an element's place in a
            register, from the low bits up. With 64 bits, a register is a pair of registers here.
        column: the same for its column.
    """

    shape: tuple[int, int]
    bits: int
    row: np.ndarray
    column: np.ndarray

    @property
    def lanes(self) -> int:
        """32 or 128."""
        return self.row.shape[0]

    @property
    def registers(self) -> int:
        """32-bit registers of each lane."""
        return self.row.shape[1] * max(1, self.bits // 32)

    @property
    def parts(self) -> int:
        """Elements of one register."""
        return self.row.shape[2]

    def place(self, row: Any, column: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Lane, register and part that hold the elements at rows and columns (the inverse map)."""
        inverse = np.empty(self.shape, np.int64)
        inverse[self.row, self.column] = np.arange(self.row.size).reshape(self.row.shape)
        lane, register, part = np.unravel_index(inverse[row, column], self.row.shape)
        return lane, register, part

    def pack(self, matrix: np.ndarray) -> np.ndarray:
        """Registers uint32 [registers, lanes] of a matrix.

        Args:
            matrix: integers; their low `bits` bits are the elements' bits (view floats as
                integers, negative integers are taken in two's complement).

        Raises:
            ValueError: the matrix does not have `shape`.
        """
        if matrix.shape != self.shape:
            raise ValueError(f"a matrix {matrix.shape}, not {self.shape}")
        held = matrix.astype(np.uint64)[self.row, self.column]
        held &= np.uint64((1 << self.bits) - 1)
        shifts = np.arange(self.parts, dtype=np.uint64) * np.uint64(self.bits)
        words = np.bitwise_or.reduce(held << shifts, axis=2)  # [lanes, registers]
        if self.bits == 64:
            words = np.stack([words & np.uint64(0xFFFFFFFF), words >> np.uint64(32)], axis=2)
            words = words.reshape(self.lanes, -1)
        return np.ascontiguousarray(words.astype(np.uint32).T)

    def unpack(self, registers: np.ndarray) -> np.ndarray:
        """The matrix, uint64 bits of elements, of registers uint32 [registers, lanes]."""
        words = np.ascontiguousarray(registers.T).astype(np.uint64)
        if self.bits == 64:
            words = words[:, 0::2] | words[:, 1::2] << np.uint64(32)
        shifts = np.arange(self.parts, dtype=np.uint64) * np.uint64(self.bits)
        matrix = np.empty(self.shape, np.uint64)
        matrix[self.row, self.column] = words[:, :, None] >> shifts & np.uint64(
            (1 << self.bits) - 1
        )
        return matrix


def _fragment(
    shape: tuple[int, int], bits: int, row: _Formula, column: _Formula, lanes: int = 32
) -> Fragment:
    """From the manual's formulas of group, place in the group and element's index i."""
    parts = max(1, 32 // bits)
    elements = shape[0] * shape[1] // lanes
    lane, index = np.meshgrid(np.arange(lanes), np.arange(elements), indexing="ij")
    group, place = lane % 32 >> 2, lane % 4
    warp = lane // 32
    found = (lanes, elements // parts, parts)
    rows = np.broadcast_to(row(group, place, index) + 16 * warp, lane.shape).reshape(found)
    columns = np.broadcast_to(column(group, place, index), lane.shape).reshape(found)
    return Fragment(shape, bits, rows.astype(np.int64), columns.astype(np.int64))


def _lower(*ranges: tuple[int, int]) -> _Formula:
    """Row `group` for elements in the ranges, `group + 8` for all others."""

    def row(group: Any, _: Any, index: Any) -> Any:
        upper = np.zeros(index.shape, bool)
        for first, last in ranges:
            upper |= (first <= index) & (index < last)
        return np.where(upper, group, group + 8)

    return row


# Multiplicand A of 16 rows: (bits, k) -> formulas for row and column.
_A: dict[tuple[int, int], tuple[_Formula, _Formula]] = {
    # m16n8k4, .f64 and .tf32
    (64, 4): (lambda g, t, i: g + 8 * i, lambda g, t, i: t),
    (32, 4): (lambda g, t, i: g + 8 * i, lambda g, t, i: t),
    # m16n8k8
    (64, 8): (lambda g, t, i: g + 8 * (i % 2), lambda g, t, i: t + 4 * (i // 2)),
    (32, 8): (lambda g, t, i: g + 8 * (i % 2), lambda g, t, i: t + 4 * (i >= 2)),
    (16, 8): (_lower((0, 2)), lambda g, t, i: t * 2 + (i & 1)),
    # m16n8k16
    (64, 16): (
        lambda g, t, i: g + 8 * (i % 2),
        lambda g, t, i: np.where(i % 2 == 0, i * 2 + t, i * 2 - 2 + t),
    ),
    (16, 16): (_lower((0, 2), (4, 6)), lambda g, t, i: t * 2 + (i & 1) + 8 * (i >= 4)),
    (8, 16): (_lower((0, 4)), lambda g, t, i: t * 4 + (i & 3)),
    # m16n8k32
    (8, 32): (_lower((0, 4), (8, 12)), lambda g, t, i: t * 4 + (i & 3) + 16 * (i >= 8)),
    (4, 32): (_lower((0, 8)), lambda g, t, i: t * 8 + (i & 7)),
    # m16n8k64
    (4, 64): (_lower((0, 8), (16, 24)), lambda g, t, i: t * 8 + (i & 7) + 32 * (i >= 16)),
    # m16n8k128, m16n8k256
    (1, 128): (_lower((0, 32)), lambda g, t, i: t * 32 + (i & 31)),
    (1, 256): (_lower((0, 32), (64, 96)), lambda g, t, i: t * 32 + (i & 31) + 128 * (i >= 64)),
}


def mma_a(bits: int, k: int, rows: int = 16) -> Fragment:
    """Multiplicand A [rows, k] of ``mma.sync``; of ``mma.sp``, its kept elements (half of k).

    Args:
        bits: of an element: 64 (f64), 32 (tf32), 16, 8, 4 or 1.
        k: columns of A.
        rows: 16, or 8 for the m8n8 shapes.

    Raises:
        KeyError: no instruction has such an operand.
    """
    if rows == 8:
        parts = max(1, 32 // bits)
        if k != 4 * parts:
            raise KeyError((bits, k, rows))
        return _fragment((8, k), bits, lambda g, t, i: g, lambda g, t, i: t * parts + i)
    return _fragment((16, k), bits, *_A[bits, k])


def mma_b(bits: int, k: int) -> Fragment:
    """Multiplicand B [k, 8] of ``mma.sync`` and ``mma.sp``: every register four lanes' 128 bits
    further along k, in a column for each group."""
    parts = max(1, 32 // bits)
    return _fragment(
        (k, 8),
        bits,
        lambda g, t, i: t * parts + i % parts + 4 * parts * (i // parts),
        lambda g, t, i: g,
    )


def mma_sum(bits: int = 32, rows: int = 16) -> Fragment:
    """Accumulators C and D [rows, 8] of ``mma.sync``: bits is 32, 16 (f16) or 64 (f64)."""
    return _fragment(
        (rows, 8), bits, lambda g, t, i: g + 8 * (i >= 2), lambda g, t, i: t * 2 + (i & 1)
    )


def wgmma_a(bits: int) -> Fragment:
    """A [64, k] of ``wgmma`` in registers, 32 bytes along k: 16 rows for each warp.

    With ``wgmma.mma_async.sp``, its kept elements.
    """
    row, column = _A[bits, 256 // bits]
    return _fragment((64, 256 // bits), bits, row, column, lanes=128)


def wgmma_sum(n: int, bits: int = 32) -> Fragment:
    """Accumulator D [64, n] of ``wgmma``: lane 4 g + t of warp w has, for every eight columns j,
    elements at rows 16 w + g and 16 w + g + 8, columns 8 j + 2 t and its neighbour."""
    return _fragment(
        (64, n),
        bits,
        lambda g, t, i: g + 8 * (i % 4 >= 2),
        lambda g, t, i: 8 * (i // 4) + 2 * t + (i & 1),
        lanes=128,
    )


def ldmatrix(matrices: int, transpose: bool = False) -> Fragment:
    """``ldmatrix`` and ``stmatrix``: 8 x 8 matrices of 16 bits, one below the other.

    Lane ``r`` gives the address of row ``r`` [8 * matrices, 8]; register ``m`` holds of matrix
    ``m``, by lane, row ``lane / 4`` and columns ``2 * (lane % 4)`` and the next, or the transposed
    matrix's.
    """

    def in_matrix(pair: bool) -> _Formula:
        return (lambda g, t, i: t * 2 + i % 2) if pair else (lambda g, t, i: g)

    inner, column = in_matrix(transpose), in_matrix(not transpose)
    return _fragment((8 * matrices, 8), 16, lambda g, t, i: 8 * (i // 2) + inner(g, t, i), column)
