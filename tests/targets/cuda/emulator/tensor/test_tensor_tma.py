"""Tensor maps and bulk copies against an element-by-element model, and into wgmma."""

from __future__ import annotations

import ctypes
import itertools
from typing import Any

import numpy as np
import pytest
from fewbits.schedules.cuda.intrinsics.fragments import wgmma_sum
from fewbits.schedules.cuda.intrinsics.swizzle import TENSOR_MAP_SWIZZLES, Descriptor, swizzle

UINT8, UINT16, UINT32, INT32, UINT64, INT64, FLOAT16, FLOAT32, FLOAT64, BFLOAT16, FLOAT32_FTZ = (
    range(11)
)
BASE = 0x7F0000001000
ADD, MIN, MAX, INC, DEC, AND, OR, XOR = range(8)


def tensor_map(
    tensor: Any,
    data_type: int,
    shape: tuple[int, ...],
    strides: tuple[int, ...],
    box: tuple[int, ...],
    *,
    steps: tuple[int, ...] | None = None,
    address: int = BASE,
    span: int = 16,
    interleave: int = 0,
    swizzle_field: int | None = None,
    promotion: int = 0,
    fill: int = 0,
) -> Any:
    """Encoded; innermost dimension first."""
    storage = np.zeros(192, np.uint8)
    start = -storage.ctypes.data % 64
    found = storage[start : start + 128]
    rank = len(shape)
    tensor.call(
        "fb_tensor_map_encode",
        ctypes.c_void_p(found.ctypes.data),
        data_type,
        rank,
        ctypes.c_uint64(address),
        (ctypes.c_uint64 * rank)(*shape),
        (ctypes.c_uint64 * max(1, rank - 1))(*strides),
        (ctypes.c_uint32 * rank)(*box),
        (ctypes.c_uint32 * rank)(*(steps or (1,) * rank)),
        interleave,
        TENSOR_MAP_SWIZZLES[span] if swizzle_field is None else swizzle_field,
        promotion,
        fill,
    )
    return found


def copy(
    tensor: Any,
    name: str,
    encoded: np.ndarray,
    where: tuple[int, ...],
    memory: Any,
    shared: np.ndarray,
    address: int,
    reduction: int | None = None,
) -> int:
    """Runs load, store or reduce; the bytes of a load."""
    count = ctypes.c_uint32()
    extra = [ctypes.byref(count)] if name == "load" else []
    tensor.call(
        f"fb_tma_{name}",
        ctypes.c_void_p(encoded.ctypes.data),
        len(where),
        (ctypes.c_int32 * len(where))(*where),
        *([] if reduction is None else [reduction]),
        ctypes.byref(memory.structure()),
        tensor.shared(shared),
        ctypes.c_uint32(address),
        *extra,
    )
    return count.value


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
    encoded = tensor_map(tensor, kind, shape, strides_of(source), box, steps=steps, span=span)
    address = 1024 + 128
    shared = rng.integers(0, 256, 32768, dtype=np.uint8)
    before = shared.copy()
    places = model(source, box, steps or (1,) * len(box), where, span, address)
    count = copy(tensor, "load", encoded, where, memory, shared, address)
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
    copy(tensor, "store", encoded, where, memory, noise, address)
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
        tensor_map(
            tensor,
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
        copy(tensor, "load", maps[0], (start, 0), memory, shared, 0)
        copy(tensor, "load", maps[1], (start, 0), memory, shared, 16384)
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
    encoded = tensor_map(tensor, FLOAT32_FTZ, (4,), (), (8,), fill=1)
    copy(tensor, "load", encoded, (0,), memory, shared, 128)
    found = shared[128:160].view(np.float32)
    np.testing.assert_array_equal(found[:4], [0.0, -0.0, 2.0, 3.0])
    assert np.isnan(found[4:]).all()


@pytest.mark.parametrize(
    ("dtype", "kind", "reduction", "operation"),
    [
        (np.uint32, UINT32, ADD, np.add),
        (np.int32, INT32, MIN, np.minimum),
        (np.int32, INT32, MAX, np.maximum),
        (np.uint64, UINT64, ADD, np.add),
        (np.int64, INT64, MIN, np.minimum),
        (np.uint32, UINT32, AND, np.bitwise_and),
        (np.uint64, UINT64, OR, np.bitwise_or),
        (np.int32, INT32, XOR, np.bitwise_xor),
        (np.float16, FLOAT16, ADD, np.add),
        (np.float32, FLOAT32, ADD, np.add),
        (np.float16, FLOAT16, MAX, np.maximum),
    ],
)
def test_reduce(
    tensor: Any,
    rng: np.random.Generator,
    memory: Any,
    dtype: Any,
    kind: int,
    reduction: int,
    operation: Any,
) -> None:
    """Each element with the one in memory; elements outside are left alone."""
    item = np.dtype(dtype).itemsize
    columns = 64 // item
    shape = (6, columns)
    if np.issubdtype(dtype, np.floating):
        target, value = (rng.normal(size=shape).astype(dtype) for _ in range(2))
    else:
        information = np.iinfo(dtype)
        target, value = (
            rng.integers(information.min, information.max, shape, dtype, endpoint=True)
            for _ in range(2)
        )
    memory.add(BASE, target)
    before = target.copy()
    shared = np.zeros(1024, np.uint8)
    shared[: value.nbytes] = value.view(np.uint8).reshape(-1)
    encoded = tensor_map(tensor, kind, (columns, 6), (64,), (columns, 6))
    copy(tensor, "reduce", encoded, (0, 2), memory, shared, 0, reduction)
    np.testing.assert_array_equal(target[:2], before[:2])
    np.testing.assert_array_equal(target[2:], operation(before[2:], value[:4]))


def test_reductions_that_wrap(tensor: Any, memory: Any) -> None:
    """inc and dec as atomicInc and atomicDec are; a type that a reduction does not have."""
    target = np.array([0, 5, 9, 10], np.uint32)
    memory.add(BASE, target)
    shared = np.zeros(128, np.uint8)
    shared[:16] = np.full(4, 9, np.uint32).view(np.uint8)
    encoded = tensor_map(tensor, UINT32, (4,), (), (4,))
    copy(tensor, "reduce", encoded, (0,), memory, shared, 0, INC)
    np.testing.assert_array_equal(target, [1, 6, 0, 0])
    target[:] = [0, 5, 9, 10]
    copy(tensor, "reduce", encoded, (0,), memory, shared, 0, DEC)
    np.testing.assert_array_equal(target, [9, 4, 8, 9])
    wrong = tensor_map(tensor, FLOAT32, (4,), (), (4,))
    with pytest.raises(tensor.Error, match="reduction"):
        copy(tensor, "reduce", wrong, (0,), memory, shared, 0, MIN)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"address": BASE + 8}, "globalAddress"),
        ({"strides": (72,)}, "globalStrides"),
        ({"strides": (1 << 40,)}, "globalStrides"),
        ({"box": (257, 8)}, "boxDim"),
        ({"box": (0, 8)}, "boxDim"),
        ({"box": (12, 8)}, "box's rows"),
        ({"box": (64, 8), "span": 32}, "swizzle"),
        ({"shape": (0, 8)}, "globalDim"),
        ({"shape": ((1 << 32) + 1, 8)}, "globalDim"),
        ({"shape": (1,) * 6, "strides": (16,) * 5, "box": (16,) * 6}, "rank"),
        ({"steps": (1, 9)}, "elementStrides"),
        ({"steps": (1, 0)}, "elementStrides"),
        ({"data_type": 16}, "tensorDataType"),
        ({"interleave": 1}, "interleaved"),
        ({"swizzle_field": 4}, "swizzle"),
        ({"promotion": 4}, "l2Promotion"),
        ({"fill": 1}, "oobFill"),
    ],
)
def test_maps_that_the_driver_refuses(tensor: Any, changes: dict[str, Any], message: str) -> None:
    """The requirements of cuTensorMapEncodeTiled, one by one."""
    arguments: dict[str, Any] = {
        "data_type": UINT8,
        "shape": (64, 32),
        "strides": (64,),
        "box": (16, 8),
    }
    tensor_map(tensor, **arguments)
    with pytest.raises(tensor.Error, match=message):
        tensor_map(tensor, **{**arguments, **changes})


def test_copies_that_are_errors(tensor: Any, memory: Any) -> None:
    """No map, another rank, a shared address that is not aligned or outside, freed memory."""
    shared = np.zeros(1024, np.uint8)
    encoded = tensor_map(tensor, UINT8, (64, 32), (64,), (64, 8))
    nothing = np.zeros(192, np.uint8)
    blank = nothing[-nothing.ctypes.data % 64 :][:128]
    for name, at in (("load", 0), ("store", 0)):
        with pytest.raises(tensor.Error, match="not made by"):
            copy(tensor, name, blank, (0, 0), memory, shared, at)
        with pytest.raises(tensor.Error, match="1d instruction"):
            copy(tensor, name, encoded, (0,), memory, shared, at)
        with pytest.raises(tensor.Error, match="multiple of 128"):
            copy(tensor, name, encoded, (0, 0), memory, shared, 64)
        with pytest.raises(tensor.Error, match="outside of the block"):
            copy(tensor, name, encoded, (0, 0), memory, shared, 640)
        with pytest.raises(tensor.Error, match="outside of every allocation"):
            copy(tensor, name, encoded, (0, 0), memory, shared, at)


def test_bulk_copies(tensor: Any, rng: np.random.Generator, memory: Any) -> None:
    """cp.async.bulk both ways, and from block to block."""
    source, target = rng.integers(0, 256, 256, dtype=np.uint8), np.zeros(256, np.uint8)
    memory.add(BASE, source)
    memory.add(BASE + 4096, target)
    first, second = np.zeros(512, np.uint8), np.zeros(512, np.uint8)
    one, two = tensor.shared(first), tensor.shared(second)
    space = memory.structure()

    def number(value: int) -> ctypes.c_uint64:
        return ctypes.c_uint64(value)

    tensor.call("fb_bulk_load", ctypes.byref(space), number(BASE + 16), one, 32, 224)
    np.testing.assert_array_equal(first[32:256], source[16:240])
    tensor.call("fb_bulk_copy", one, 32, two, 272, 224)
    tensor.call("fb_bulk_store", ctypes.byref(space), number(BASE + 4096), two, 272, 224)
    np.testing.assert_array_equal(target[:224], source[16:240])
    assert not target[224:].any()
    for address, to, size in ((BASE + 8, 0, 16), (BASE, 8, 16), (BASE, 0, 24), (BASE, 0, 272)):
        with pytest.raises(tensor.Error, match=r"multiple|outside"):
            tensor.call("fb_bulk_load", ctypes.byref(space), number(address), one, to, size)
