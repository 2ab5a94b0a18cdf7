"""Tensor maps and bulk copies against an element-by-element model, and into wgmma."""

from __future__ import annotations

import ctypes
import itertools
from typing import Any

import numpy as np
import pytest
from fewbits.schedules.cuda.intrinsics.fragments import wgmma_sum
from fewbits.schedules.cuda.intrinsics.swizzle import Descriptor, swizzle

UINT8, UINT16, UINT32, INT32, UINT64, INT64, FLOAT16, FLOAT32, FLOAT64, BFLOAT16, FLOAT32_FTZ = (
    range(11)
)
BASE = 0x7F0000001000


CASES = [
    # dtype, map type, shape, box, steps, where, span; all innermost first
    (np.uint8, UINT8, (100,), (64,), None, (48,), 16),
    (np.uint8, UINT8, (40, 20), (32, 16), None, (16, 8), 32),
    (np.float16, FLOAT16, (72, 33), (64, 24), None, (-8, -3), 128),
    (np.uint16, BFLOAT16, (72, 33), (32, 24), None, (48, 20), 64),
    (np.float32, FLOAT32, (20, 9, 5), (8, 4, 3), None, (8, 7, 3), 32),
    (np.float64, FLOAT64, (6, 5, 4, 3), (4, 2, 3, 2), None, (4, 4, -1, 2), 32),
    (np.int64, INT64, (4, 3, 3, 3, 3), (2, 2, 2, 2, 2), None, (2, 2, 2, -1, 1), 16),
    (np.int32, INT32, (16, 30), (16, 12), (1, 3), (0, 5), 64),
    (np.uint8, UINT8, (200, 12), (48, 8), None, (160, 6), 128),
    (np.uint32, UINT32, (8, 8), (8, 4), None, (-100, 0), 32),
]


def model(
    source: np.ndarray,
    box: tuple[int, ...],
    steps: tuple[int, ...],
    where: tuple[int, ...],
    span: int,
    address: int,
) -> list[tuple[int, tuple[int, ...] | None]]:
    """For each element of the box: its shared address, and its index if it is in the tensor."""
    item = source.itemsize
    counts = [-(-size // step) for size, step in zip(box, steps, strict=True)]
    pitch = counts[0] * item if span == 16 else span
    places = []
    for index in itertools.product(*(range(count) for count in reversed(counts))):
        inner, outer = index[-1], index[:-1]
        row = 0
        for coordinate, count in zip(outer, list(reversed(counts))[:-1], strict=True):
            row = row * count + coordinate
        at = address + row * pitch + inner * item
        start = tuple(reversed(where))
        step = tuple(reversed(steps))
        element = tuple(s + i * d for s, i, d in zip(start, index, step, strict=True))
        inside = all(0 <= e < n for e, n in zip(element, source.shape, strict=True))
        places.append((int(swizzle(at, span)), element if inside else None))
    return places


def strided(rng: np.random.Generator, dtype: Any, shape: tuple[int, ...]) -> np.ndarray:
    """Random [outermost .. innermost], rows padded to a multiple of 16 bytes and 16 more."""
    item = np.dtype(dtype).itemsize
    row = -(-shape[0] * item // 16) * 16 + 16
    raw = rng.integers(1, 120, (*reversed(shape[1:]), row), dtype=np.uint8)
    return raw.view(dtype)[..., : shape[0]]


def strides_of(array: np.ndarray) -> tuple[int, ...]:
    """globalStrides: bytes, of the second dimension and up."""
    return tuple(reversed(array.strides[:-1]))


def owner(array: np.ndarray) -> np.ndarray:
    """The whole memory behind a view."""
    while array.base is not None:
        array = array.base
    return array


@pytest.mark.parametrize(("dtype", "kind", "shape", "box", "steps", "where", "span"), CASES)
def test_load_and_store(
    tensor: Any,
    rng: np.random.Generator,
    memory: Any,
    dtype: Any,
    kind: int,
    shape: tuple[int, ...],
    box: tuple[int, ...],
    steps: tuple[int, ...] | None,
    where: tuple[int, ...],
    span: int,
) -> None:
    """Every element of the box, inside and outside of the tensor; nothing else is touched."""
    source = strided(rng, dtype, shape)
    memory.add(BASE, owner(source))
    encoded = tensor.tensor_map(kind, shape, strides_of(source), box, steps=steps, span=span)
    address = 1024 + 128
    shared = rng.integers(0, 256, 32768, dtype=np.uint8)
    before = shared.copy()
    places = model(source, box, steps or (1,) * len(box), where, span, address)
    count = tensor.tma("load", encoded, where, memory, shared, address)
    assert count == len(places) * source.itemsize
    room = ctypes.c_uint32()
    tensor.call("fb_tma_room", ctypes.c_void_p(encoded.ctypes.data), ctypes.byref(room))
    ends = [at + source.itemsize - address for at, _ in places]
    assert max(ends) <= room.value < max(ends) + span + 16
    assert (room.value == count) == (span in (16, box[0] * source.itemsize))
    expected = before.copy()
    for at, element in places:
        value = np.zeros(1, dtype) if element is None else source[element].reshape(1)
        expected[at : at + source.itemsize] = value.view(np.uint8)
    np.testing.assert_array_equal(shared, expected)

    original = owner(source).copy()
    noise = rng.integers(0, 256, 32768, dtype=np.uint8)
    tensor.tma("store", encoded, where, memory, noise, address)
    written = source.copy()
    restored = owner(source)
    for at, element in places:
        if element is not None:
            value = noise[at : at + source.itemsize].view(dtype)[0]
            assert written[element].tobytes() == value.tobytes()
            source[element] = np.zeros((), dtype)
    # With the box's elements cleared on both sides, the rest is as it was.
    mask = original.copy()
    view = mask.view(dtype)[..., : shape[0]]
    for _, element in places:
        if element is not None:
            view[element] = np.zeros((), dtype)
    np.testing.assert_array_equal(restored, mask)


@pytest.mark.parametrize("span", [32, 64, 128])
def test_load_feeds_wgmma(tensor: Any, rng: np.random.Generator, memory: Any, span: int) -> None:
    """Boxes of A and B that TMA swizzles are what the descriptor with that swizzle reads."""
    k = span * 2
    a = rng.integers(-128, 128, (64, k)).astype(np.int8)
    b = rng.integers(-128, 128, (96, k)).astype(np.int8)
    memory.add(BASE, a)
    memory.add(BASE + (1 << 20), b)
    maps = [
        tensor.tensor_map(
            UINT8,
            (k, x.shape[0]),
            (k,),
            (span, x.shape[0]),
            span=span,
            address=BASE + (at << 20),
        )
        for at, x in enumerate((a, b))
    ]
    d = np.zeros((48, 128), np.uint32)
    shared = np.zeros(65536, np.uint8)
    for start in range(0, k, span):
        tensor.tma("load", maps[0], (start, 0), memory, shared, 0)
        tensor.tma("load", maps[1], (start, 0), memory, shared, 16384)
        for step in range(0, span, 32):
            at = Descriptor(step, 16, 8 * span, span).encode()
            bt = Descriptor(16384 + step, 16, 8 * span, span).encode()
            d = tensor.wgmma(96, 32, ("s32", "s8", "s8"), shared, at, bt, d)
    found = wgmma_sum(96).unpack(d).astype(np.uint32).view(np.int32)
    np.testing.assert_array_equal(found, a.astype(np.int64) @ b.astype(np.int64).T)


def test_fill_with_nan_and_flush(tensor: Any, memory: Any) -> None:
    """oobFill 1 gives NaN; the FTZ types lose subnormals."""
    source = np.array([1e-40, -1e-40, 2.0, 3.0], np.float32)
    memory.add(BASE, source)
    shared = np.zeros(256, np.uint8)
    encoded = tensor.tensor_map(FLOAT32_FTZ, (4,), (), (8,), fill=1)
    tensor.tma("load", encoded, (0,), memory, shared, 128)
    found = shared[128:160].view(np.float32)
    np.testing.assert_array_equal(found[:4], [0.0, -0.0, 2.0, 3.0])
    assert np.isnan(found[4:]).all()
