"""``wgmma``: operands placed in swizzled shared memory by the Python descriptors."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
from fewbits.schedules.cuda.intrinsics.fragments import wgmma_a, wgmma_sum
from fewbits.schedules.cuda.intrinsics.sparsity import Sparsity
from fewbits.schedules.cuda.intrinsics.swizzle import Descriptor

FLOATS: dict[str, Any] = {
    "f16": np.float16,
    "bf16": ml_dtypes.bfloat16,
    "tf32": np.float32,
    "e4m3": ml_dtypes.float8_e4m3fn,
    "e5m2": ml_dtypes.float8_e5m2,
}
BITS = {"f16": 16, "bf16": 16, "tf32": 32, "e4m3": 8, "e5m2": 8, "s8": 8, "u8": 8}
SIZE = 96 * 1024


def encode(values: np.ndarray, name: str) -> np.ndarray:
    """Small integers as a format's elements."""
    if name in FLOATS:
        return values.astype(FLOATS[name])
    return values.astype(np.int8 if name == "s8" else np.uint8)


def values_of(rng: np.random.Generator, shape: tuple[int, ...], name: str) -> np.ndarray:
    """Integers that every format holds exactly, negative ones where it has them."""
    return rng.integers(0 if name == "u8" else -7, 8, shape)


def layout(start: int, rows: int, k_bytes: int, span: int, element: int, mn: bool) -> Descriptor:
    """A descriptor of a densely stored matrix [rows, k]."""
    if not mn:
        if span == 16:  # columns of 16 bytes, one after another
            return Descriptor(start, leading=rows * 16, stride=128, span=16)
        return Descriptor(start, leading=16, stride=8 * span, span=span)
    k = k_bytes // element
    if span == 16:  # SBO: next 16 bytes of rows; LBO: next 8 of k
        return Descriptor(start, leading=rows * element // 16 * 128, stride=128, span=16)
    # blocks of `span` bytes of rows by k; LBO: next block of rows
    return Descriptor(start, leading=span * k, stride=8 * span, span=span)


def place(shared: np.ndarray, where: Descriptor, matrix: np.ndarray, mn: bool) -> None:
    """Writes elements [rows, k] to the addresses of a descriptor, each of which must be new."""
    element = matrix.dtype.itemsize
    addresses = where.addresses(*matrix.shape, element, mn)
    assert np.unique(addresses).size == matrix.size
    spots = addresses[..., None] + np.arange(element)
    shared[spots] = np.ascontiguousarray(matrix).view(np.uint8).reshape(spots.shape)


def decoded(registers: np.ndarray, n: int, total: str) -> np.ndarray:
    """The accumulator [64, n]."""
    found = wgmma_sum(n, 16 if total == "f16" else 32).unpack(registers)
    if total == "f16":
        return found.astype(np.uint16).view(np.float16)
    return found.astype(np.uint32).view(np.int32 if total == "s32" else np.float32)


def start_sum(rng: np.random.Generator, n: int, total: str) -> tuple[np.ndarray, np.ndarray]:
    """Values and registers of an accumulator."""
    values = rng.integers(-50, 50, (64, n))
    dtype = {"f16": np.float16, "f32": np.float32, "s32": np.int32}[total]
    unsigned = values.astype(dtype).view(np.dtype(f"u{np.dtype(dtype).itemsize}"))
    return values, wgmma_sum(n, 16 if total == "f16" else 32).pack(unsigned)


@pytest.mark.parametrize("span", [16, 32, 64, 128])
@pytest.mark.parametrize(
    ("left", "right", "total", "n"),
    [
        ("f16", "f16", "f32", 64),
        ("f16", "f16", "f16", 8),
        ("bf16", "bf16", "f32", 256),
        ("tf32", "tf32", "f32", 40),
        ("e4m3", "e5m2", "f32", 120),
        ("e5m2", "e5m2", "f16", 24),
        ("s8", "s8", "s32", 256),
        ("s8", "u8", "s32", 16),
    ],
)
def test_k_major(
    tensor: Any,
    rng: np.random.Generator,
    span: int,
    left: str,
    right: str,
    total: str,
    n: int,
) -> None:
    """A in shared memory and in registers, with and without the accumulator."""
    element, k = BITS[left] // 8, 256 // BITS[left]
    a, b = values_of(rng, (64, k), left), values_of(rng, (n, k), right)
    shared = rng.integers(0, 256, SIZE, dtype=np.uint8)
    at_a = layout(1024, 64, 32, span, element, False)
    at_b = layout(16384, n, 32, span, element, False)
    place(shared, at_a, encode(a, left), False)
    place(shared, at_b, encode(b, right), False)
    c, registers = start_sum(rng, n, total)
    bits = encode(a, left).view(np.dtype(f"u{element}"))
    for source in (at_a.encode(), wgmma_a(BITS[left]).pack(bits)):
        d = tensor.wgmma(n, k, (total, left, right), shared, source, at_b.encode(), registers)
        np.testing.assert_array_equal(decoded(d, n, total), a @ b.T + c)
        d = tensor.wgmma(
            n, k, (total, left, right), shared, source, at_b.encode(), registers, scale_d=0
        )
        np.testing.assert_array_equal(decoded(d, n, total), a @ b.T)


@pytest.mark.parametrize("span", [16, 32, 64, 128])
@pytest.mark.parametrize("name", ["f16", "bf16"])
@pytest.mark.parametrize(("trans_a", "trans_b"), [(0, 1), (1, 0), (1, 1)])
def test_mn_major(
    tensor: Any, rng: np.random.Generator, span: int, name: str, trans_a: int, trans_b: int
) -> None:
    """Transposed operands, negated for good measure."""
    n, k = 128, 16
    a, b = values_of(rng, (64, k), name), values_of(rng, (n, k), name)
    shared = rng.integers(0, 256, SIZE, dtype=np.uint8)
    at_a = layout(2048, 64, 32, span, 2, bool(trans_a))
    at_b = layout(32768, n, 32, span, 2, bool(trans_b))
    place(shared, at_a, encode(a, name), bool(trans_a))
    place(shared, at_b, encode(b, name), bool(trans_b))
    c, registers = start_sum(rng, n, "f32")
    d = tensor.wgmma(
        n,
        k,
        ("f32", name, name),
        shared,
        at_a.encode(),
        at_b.encode(),
        registers,
        trans_a=trans_a,
        trans_b=trans_b,
        scale_b=-1,
    )
    np.testing.assert_array_equal(decoded(d, n, "f32"), c - a @ b.T)


def test_advance_inside_the_swizzle(tensor: Any, rng: np.random.Generator) -> None:
    """Adding 32 bytes to the start address walks along k in rows of 128 swizzled bytes."""
    a, b = values_of(rng, (64, 64), "f16"), values_of(rng, (32, 64), "f16")
    shared = np.zeros(SIZE, np.uint8)
    at_a, at_b = Descriptor(0, 16, 1024), Descriptor(8192, 16, 1024)
    place(shared, at_a, encode(a, "f16"), False)
    place(shared, at_b, encode(b, "f16"), False)
    d = np.zeros((16, 128), np.uint32)
    for step in range(4):
        d = tensor.wgmma(
            32,
            16,
            ("f32", "f16", "f16"),
            shared,
            at_a.encode() + 2 * step,
            at_b.encode() + 2 * step,
            d,
        )
    np.testing.assert_array_equal(decoded(d, 32, "f32"), a @ b.T)


def test_base_offset(tensor: Any, rng: np.random.Generator) -> None:
    """A pattern that starts at row 3 of a kilobyte, said by the descriptor's base offset."""
    a, b = values_of(rng, (64, 32), "s8"), values_of(rng, (8, 32), "s8")
    shared = np.zeros(SIZE, np.uint8)
    at_a = Descriptor(3 * 128, 16, 1024, base=3)
    at_b = Descriptor(32768, 16, 1024)
    place(shared, at_a, encode(a, "s8"), False)
    place(shared, at_b, encode(b, "s8"), False)
    d = np.zeros((4, 128), np.uint32)
    d = tensor.wgmma(8, 32, ("s32", "s8", "s8"), shared, at_a.encode(), at_b.encode(), d)
    np.testing.assert_array_equal(decoded(d, 8, "s32"), a @ b.T)


@pytest.mark.parametrize("n", [8, 128, 256])
def test_bits(tensor: Any, rng: np.random.Generator, n: int) -> None:
    """AND and count, 256 bits along k."""
    a, b = rng.integers(0, 2, (64, 256)), rng.integers(0, 2, (n, 256))
    shared = np.zeros(SIZE, np.uint8)
    at_a, at_b = Descriptor(0, 16, 256, span=32), Descriptor(16384, 16, 256, span=32)
    for where, matrix in ((at_a, a), (at_b, b)):
        packed = np.packbits(matrix.astype(np.uint8), axis=1, bitorder="little")
        place(shared, where, packed, False)
    c, registers = start_sum(rng, n, "s32")
    for source in (at_a.encode(), wgmma_a(1).pack(a)):
        d = tensor.wgmma(n, 256, ("s32", "b1", "b1"), shared, source, at_b.encode(), registers)
        np.testing.assert_array_equal(decoded(d, n, "s32"), a @ b.T + c)


@pytest.mark.parametrize("span", [16, 64, 128])
@pytest.mark.parametrize(
    ("name", "total", "n"),
    [
        ("f16", "f32", 64),
        ("bf16", "f32", 8),
        ("tf32", "f32", 16),
        ("e4m3", "f32", 40),
        ("s8", "s32", 256),
        ("u8", "s32", 96),
        ("f16", "f16", 32),
    ],
)
def test_sparse(
    tensor: Any, rng: np.random.Generator, span: int, name: str, total: str, n: int
) -> None:
    """``wgmma.mma_async.sp``: every selector, A from both places."""
    bits, element = BITS[name], BITS[name] // 8
    form = Sparsity(bits, 512 // bits)
    a = values_of(rng, (64, form.k), name)
    cells = a.reshape(64, -1, form.chunk)
    order = rng.permuted(np.broadcast_to(np.arange(form.chunk), cells.shape), axis=2)
    cells[order >= form.chunk // 2] = 0
    b = values_of(rng, (n, form.k), name)
    kept, codes = form.compress(a)
    shared = rng.integers(0, 256, SIZE, dtype=np.uint8)
    at_a = layout(0, 64, 32, span, element, False)
    at_b = layout(16384, n, 64, span, element, False)
    place(shared, at_a, encode(kept, name), False)
    place(shared, at_b, encode(b, name), False)
    c, registers = start_sum(rng, n, total)
    in_registers = wgmma_a(bits).pack(encode(kept, name).view(np.dtype(f"u{element}")))
    for selector in range(form.selectors):
        rows = codes.reshape(4, 16, -1)
        metadata = np.concatenate([form.metadata(warp, selector) for warp in rows])
        for source in (at_a.encode(), in_registers):
            d = tensor.wgmma(
                n,
                form.k,
                (total, name, name),
                shared,
                source,
                at_b.encode(),
                registers,
                metadata,
                sparse=1,
                selector=selector,
            )
            np.testing.assert_array_equal(decoded(d, n, total), a @ b.T + c)


@pytest.mark.parametrize(
    ("n", "k", "types", "flags", "message"),
    [
        (40, 32, ("s32", "s8", "s8"), {}, "there is no"),
        (264, 16, ("f32", "f16", "f16"), {}, "there is no"),
        (64, 32, ("f32", "f16", "f16"), {}, "there is no"),
        (64, 16, ("f16", "bf16", "bf16"), {}, "there is no"),
        (64, 32, ("s32", "s8", "s8"), {"trans_b": 1}, "MN-major"),
        (64, 32, ("s32", "s8", "s8"), {"scale_a": -1}, "imm-scale"),
        (64, 16, ("f32", "f16", "f16"), {"scale_a": 2}, "imm-scale"),
        (64, 16, ("f32", "f16", "f16"), {"saturate": 1}, "satfinite"),
    ],
)
def test_what_is_no_instruction(
    tensor: Any,
    n: int,
    k: int,
    types: tuple[str, ...],
    flags: dict[str, int],
    message: str,
) -> None:
    """Shapes, types and immediates that the manual does not list."""
    shared, d = np.zeros(SIZE, np.uint8), np.zeros((n // 2, 128), np.uint32)
    at = Descriptor(0, 16, 1024).encode()
    with pytest.raises(tensor.Error, match=message):
        tensor.wgmma(n, k, types, shared, at, at, d, **flags)


def test_outside_of_shared_memory(tensor: Any) -> None:
    """An operand that ends behind the block's memory, and one wider than its swizzle."""
    shared, d = np.zeros(16384, np.uint8), np.zeros((32, 128), np.uint32)
    inside, outside = Descriptor(0, 16, 1024).encode(), Descriptor(15 * 1024, 16, 1024).encode()
    with pytest.raises(tensor.Error, match=r"wgmma: B.*outside"):
        tensor.wgmma(64, 16, ("f32", "f16", "f16"), shared, inside, outside, d)
    narrow = Descriptor(0, 16, 256, span=32).encode()
    codes = np.full(128, 0x44444444, np.uint32)
    with pytest.raises(tensor.Error, match="do not fit"):
        tensor.wgmma(64, 32, ("f32", "f16", "f16"), shared, inside, narrow, d, codes, sparse=1)
