"""``ldmatrix``, ``stmatrix``, ``movmatrix`` against the Python maps."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
import pytest
from fewbits.schedules.cuda.intrinsics.fragments import ldmatrix, mma_a, mma_b


def addresses_of(rng: np.random.Generator, count: int) -> np.ndarray:
    """Rows of 16 bytes, scattered over 4 KiB; nonsense for lanes that give none."""
    addresses = np.full(32, 0xFFFFFFF1, np.uint32)
    addresses[: 8 * count] = rng.permutation(256)[: 8 * count] * 16
    return addresses


@pytest.mark.parametrize("count", [1, 2, 4])
@pytest.mark.parametrize("transpose", [False, True])
def test_load_and_store(tensor: Any, rng: np.random.Generator, count: int, transpose: bool) -> None:
    """Rows go to the lanes that the map names, and back."""
    shared = rng.integers(0, 256, 4096, dtype=np.uint8)
    addresses = addresses_of(rng, count)
    rows = shared[addresses[: 8 * count, None] + np.arange(16)].view(np.uint16)
    registers = np.zeros((count, 32), np.uint32)
    tensor.call(
        "fb_ldmatrix",
        tensor.shared(shared),
        count,
        transpose,
        ctypes.c_void_p(addresses.ctypes.data),
        ctypes.c_void_p(registers.ctypes.data),
    )
    form = ldmatrix(count, transpose)
    np.testing.assert_array_equal(registers, form.pack(rows))
    copy = np.zeros_like(shared)
    tensor.call(
        "fb_stmatrix",
        tensor.shared(copy),
        count,
        transpose,
        ctypes.c_void_p(addresses.ctypes.data),
        ctypes.c_void_p(registers.ctypes.data),
    )
    written = copy[addresses[: 8 * count, None] + np.arange(16)].view(np.uint16)
    np.testing.assert_array_equal(written, rows)
    assert np.count_nonzero(copy) == np.count_nonzero(written.view(np.uint8))


def test_four_matrices_are_operand_a(rng: np.random.Generator) -> None:
    """ldmatrix.x4 of the quarters of 16 x 16 halves gives A of m16n8k16; .x2 of a column-major B
    gives its B."""
    a = rng.integers(0, 2**16, (16, 16))
    quarters = np.concatenate([a[:8, :8], a[8:, :8], a[:8, 8:], a[8:, 8:]])
    np.testing.assert_array_equal(ldmatrix(4).pack(quarters), mma_a(16, 16).pack(a))
    b = rng.integers(0, 2**16, (16, 8))
    halves = np.concatenate([b[:8].T, b[8:].T])
    np.testing.assert_array_equal(ldmatrix(2).pack(halves), mma_b(16, 16).pack(b))
    np.testing.assert_array_equal(ldmatrix(2, True).pack(b), mma_b(16, 16).pack(b))


def test_transpose_of_registers(tensor: Any, rng: np.random.Generator) -> None:
    """movmatrix transposes what the lanes hold."""
    matrix = rng.integers(0, 2**16, (8, 8))
    form = ldmatrix(1)
    result = tensor.movmatrix(form.pack(matrix)[0])
    np.testing.assert_array_equal(form.unpack(result[None]), matrix.T)


@pytest.mark.parametrize(("address", "message"), [(8, "multiple of 16"), (4096, "outside")])
def test_bad_rows(tensor: Any, address: int, message: str) -> None:
    """A row that is not aligned, or outside."""
    shared, registers = np.zeros(4096, np.uint8), np.zeros((4, 32), np.uint32)
    addresses = np.zeros(32, np.uint32)
    addresses[31] = address
    for name in ("fb_ldmatrix", "fb_stmatrix"):
        with pytest.raises(tensor.Error, match=message):
            tensor.call(
                name,
                tensor.shared(shared),
                4,
                False,
                ctypes.c_void_p(addresses.ctypes.data),
                ctypes.c_void_p(registers.ctypes.data),
            )
