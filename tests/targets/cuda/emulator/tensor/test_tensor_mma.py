"""``mma.sync``: matrices laid out by the Python maps, multiplied in C, compared with numpy."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
from fewbits.schedules.cuda.intrinsics.fragments import mma_a, mma_b, mma_sum

FLOATS: dict[str, Any] = {
    "f16": np.float16,
    "bf16": ml_dtypes.bfloat16,
    "tf32": np.float32,
    "e4m3": ml_dtypes.float8_e4m3fn,
    "e5m2": ml_dtypes.float8_e5m2,
    "f32": np.float32,
}
BITS = {"f16": 16, "bf16": 16, "tf32": 32, "e4m3": 8, "e5m2": 8, "f32": 32, "f64": 64}
RANGES = {"s8": (-128, 128), "u8": (0, 256), "s4": (-8, 8), "u4": (0, 16), "b1": (0, 2)}


def bits_of(values: np.ndarray, name: str) -> np.ndarray:
    """Floats, already representable, as the integers of their bits."""
    typed = values.astype(FLOATS[name])
    return typed.view(np.dtype(f"u{typed.itemsize}"))


def representable(rng: np.random.Generator, shape: tuple[int, ...], name: str) -> np.ndarray:
    """Random values of a format, as float64."""
    values = rng.normal(size=shape).astype(np.float32)
    if name == "tf32":
        values = (values.view(np.uint32) & np.uint32(0xFFFFE000)).view(np.float32)
    return values.astype(FLOATS[name]).astype(np.float64)


def from_bits(bits: np.ndarray, name: str) -> np.ndarray:
    """float64 values of a sum's bits."""
    dtype = FLOATS[name]
    unsigned = bits.astype(np.dtype(f"u{np.dtype(dtype).itemsize}"))
    return unsigned.view(dtype).astype(np.float64)


FLOAT_SHAPES = [
    ("f16", "f16", 8, "f32"),
    ("f16", "f16", 16, "f32"),
    ("f16", "f16", 8, "f16"),
    ("f16", "f16", 16, "f16"),
    ("bf16", "bf16", 8, "f32"),
    ("bf16", "bf16", 16, "f32"),
    ("tf32", "tf32", 4, "f32"),
    ("tf32", "tf32", 8, "f32"),
    ("e4m3", "e4m3", 16, "f32"),
    ("e4m3", "e5m2", 32, "f32"),
    ("e5m2", "e5m2", 32, "f16"),
    ("e5m2", "e4m3", 16, "f16"),
]


@pytest.mark.parametrize(("left", "right", "k", "total"), FLOAT_SHAPES)
def test_floats(
    tensor: Any, rng: np.random.Generator, left: str, right: str, k: int, total: str
) -> None:
    """The exact sum, rounded once."""
    a = representable(rng, (16, k), left)
    b = representable(rng, (k, 8), right)
    c = representable(rng, (16, 8), total)
    sums = mma_sum(BITS[total])
    d = tensor.mma(
        (16, 8, k),
        (total, left, right, total),
        mma_a(BITS[left], k).pack(bits_of(a, left)),
        mma_b(BITS[right], k).pack(bits_of(b, right)),
        sums.pack(bits_of(c, total)),
    )
    # Sums in double of at most 32 products of 22 bits: exact up to the last bits of a double.
    expected = (a @ b + c).astype(FLOATS[total]).astype(np.float64)
    np.testing.assert_array_equal(from_bits(sums.unpack(d), total), expected)


@pytest.mark.parametrize(
    ("left", "right", "rows", "k"),
    [
        ("s8", "s8", 8, 16),
        ("u8", "s8", 16, 16),
        ("s8", "s8", 16, 32),
        ("s8", "u8", 16, 32),
        ("s4", "s4", 8, 32),
        ("s4", "u4", 16, 32),
        ("u4", "s4", 16, 64),
        ("s4", "s4", 16, 64),
    ],
)
def test_integers(
    tensor: Any, rng: np.random.Generator, left: str, right: str, rows: int, k: int
) -> None:
    """Exact; the accumulator wraps, or stops at the ends of its range."""
    bits = 8 if left.endswith("8") else 4
    a = rng.integers(*RANGES[left], (rows, k))
    b = rng.integers(*RANGES[right], (k, 8))
    ends = np.array([-(2**31), 2**31 - 1, 0, 12345])
    c = rng.choice(ends, (rows, 8))
    sums = mma_sum(32, rows)
    operands = (mma_a(bits, k, rows).pack(a), mma_b(bits, k).pack(b), sums.pack(c))
    types = ("s32", left, right, "s32")
    exact = a @ b + c
    wrapped = tensor.mma((rows, 8, k), types, *operands)
    np.testing.assert_array_equal(
        sums.unpack(wrapped).astype(np.uint32).view(np.int32), exact.astype(np.int32)
    )
    stopped = tensor.mma((rows, 8, k), types, *operands, saturate=1)
    np.testing.assert_array_equal(
        sums.unpack(stopped).astype(np.uint32).view(np.int32),
        np.clip(exact, -(2**31), 2**31 - 1),
    )


@pytest.mark.parametrize(("rows", "k"), [(8, 128), (16, 128), (16, 256)])
@pytest.mark.parametrize("xor", [0, 1])
def test_bits(tensor: Any, rng: np.random.Generator, rows: int, k: int, xor: int) -> None:
    """Ones of AND, of XOR."""
    a = rng.integers(0, 2, (rows, k))
    b = rng.integers(0, 2, (k, 8))
    c = rng.integers(-1000, 1000, (rows, 8))
    sums = mma_sum(32, rows)
    d = tensor.mma(
        (rows, 8, k),
        ("s32", "b1", "b1", "s32"),
        mma_a(1, k, rows).pack(a),
        mma_b(1, k).pack(b),
        sums.pack(c),
        xor_popc=xor,
    )
    ones = (a[:, :, None] ^ b[None]).sum(1) if xor else a @ b
    np.testing.assert_array_equal(sums.unpack(d).astype(np.uint32).view(np.int32), ones + c)


@pytest.mark.parametrize(("rows", "k"), [(8, 4), (16, 4), (16, 8), (16, 16)])
def test_doubles(tensor: Any, rng: np.random.Generator, rows: int, k: int) -> None:
    """Small integers, whose sums are exact."""
    a, b, c = (
        rng.integers(-99, 99, shape).astype(np.float64) for shape in ((rows, k), (k, 8), (rows, 8))
    )
    sums = mma_sum(64, rows)
    d = tensor.mma(
        (rows, 8, k),
        ("f64",) * 4,
        mma_a(64, k, rows).pack(a.view(np.uint64)),
        mma_b(64, k).pack(b.view(np.uint64)),
        sums.pack(c.view(np.uint64)),
    )
    np.testing.assert_array_equal(sums.unpack(d).view(np.float64), a @ b + c)


@pytest.mark.parametrize("name", ["f16", "bf16", "e4m3", "e5m2"])
def test_every_value_of_a_format(tensor: Any, name: str) -> None:
    """1 x value, for all bit patterns: decoded as ml_dtypes does."""
    bits = BITS[name]
    k = {16: 16, 8: 32}[bits]
    patterns = np.arange(1 << bits).reshape(-1, 16)
    one = bits_of(np.eye(k, 8), name)
    sums = mma_sum(32)
    for start in range(0, patterns.shape[0], max(1, patterns.shape[0] // 64)):
        a = np.zeros((16, k), np.int64)
        a[:, 0] = patterns[start]
        d = tensor.mma(
            (16, 8, k),
            ("f32", name, name, "f32"),
            mma_a(bits, k).pack(a),
            mma_b(bits, k).pack(one),
            np.zeros((4, 32), np.uint32),
        )
        unsigned = patterns[start].astype(np.dtype(f"u{bits // 8}"))
        expected = unsigned.view(FLOATS[name]).astype(np.float32)
        np.testing.assert_array_equal(from_bits(sums.unpack(d)[:, 0], "f32"), expected)


def test_rounding_to_half(tensor: Any, rng: np.random.Generator) -> None:
    """Subnormal, tied and overflowing sums round as numpy's float64 to float16 does."""
    c = np.zeros((16, 8))
    a = np.zeros((16, 16))
    b = np.zeros((16, 8))
    a[:, :2] = rng.choice([2.0**-14, 1.0, 255.0, 60000.0, 2.0**-24, 1 + 2.0**-10], (16, 2))
    b[:2] = rng.choice([0.5, 2.0**-11, 1.0, -1.0, 3 * 2.0**-12], (2, 8))
    sums = mma_sum(16)
    d = tensor.mma(
        (16, 8, 16),
        ("f16", "f16", "f16", "f16"),
        mma_a(16, 16).pack(bits_of(a, "f16")),
        mma_b(16, 16).pack(bits_of(b, "f16")),
        sums.pack(bits_of(c, "f16")),
    )
    with np.errstate(over="ignore"):
        expected = (a @ b).astype(np.float16)
    np.testing.assert_array_equal(from_bits(sums.unpack(d), "f16"), expected)


@pytest.mark.parametrize(
    ("shape", "types", "flags"),
    [
        ((16, 8, 16), ("s32", "s4", "s4", "s32"), {}),
        ((16, 8, 32), ("f32", "f16", "f16", "f32"), {}),
        ((16, 8, 16), ("f32", "f16", "bf16", "f32"), {}),
        ((16, 8, 16), ("f16", "bf16", "bf16", "f16"), {}),
        ((16, 8, 16), ("f16", "f16", "f16", "f32"), {}),
        ((16, 8, 16), ("f32", "f16", "f16", "f32"), {"saturate": 1}),
        ((16, 8, 128), ("s32", "b1", "s8", "s32"), {}),
    ],
)
def test_what_is_no_instruction(
    tensor: Any, shape: tuple[int, int, int], types: tuple[str, ...], flags: dict[str, int]
) -> None:
    """Shapes and types that the manual does not list are errors."""
    nothing = np.zeros((4, 32), np.uint32)
    with pytest.raises(tensor.Error, match=r"there is no mma|satfinite"):
        tensor.mma(shape, types, nothing, nothing, nothing, **flags)
