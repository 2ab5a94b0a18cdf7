"""Reductions, bulk copies, and what the driver and the copy engine refuse."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
import pytest

UINT8, UINT16, UINT32, INT32, UINT64, INT64, FLOAT16, FLOAT32, FLOAT64, BFLOAT16, FLOAT32_FTZ = (
    range(11)
)
BASE = 0x7F0000001000
ADD, MIN, MAX, INC, DEC, AND, OR, XOR = range(8)


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
    encoded = tensor.tensor_map(kind, (columns, 6), (64,), (columns, 6))
    tensor.tma("reduce", encoded, (0, 2), memory, shared, 0, reduction)
    np.testing.assert_array_equal(target[:2], before[:2])
    np.testing.assert_array_equal(target[2:], operation(before[2:], value[:4]))


def test_reductions_that_wrap(tensor: Any, memory: Any) -> None:
    """inc and dec as atomicInc and atomicDec are; a type that a reduction does not have."""
    target = np.array([0, 5, 9, 10], np.uint32)
    memory.add(BASE, target)
    shared = np.zeros(128, np.uint8)
    shared[:16] = np.full(4, 9, np.uint32).view(np.uint8)
    encoded = tensor.tensor_map(UINT32, (4,), (), (4,))
    tensor.tma("reduce", encoded, (0,), memory, shared, 0, INC)
    np.testing.assert_array_equal(target, [1, 6, 0, 0])
    target[:] = [0, 5, 9, 10]
    tensor.tma("reduce", encoded, (0,), memory, shared, 0, DEC)
    np.testing.assert_array_equal(target, [9, 4, 8, 9])
    wrong = tensor.tensor_map(FLOAT32, (4,), (), (4,))
    with pytest.raises(tensor.Error, match="reduction"):
        tensor.tma("reduce", wrong, (0,), memory, shared, 0, MIN)


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
    tensor.tensor_map(**arguments)
    with pytest.raises(tensor.Error, match=message):
        tensor.tensor_map(**{**arguments, **changes})


def test_copies_that_are_errors(tensor: Any, memory: Any) -> None:
    """No map, another rank, a shared address that is not aligned or outside, freed memory."""
    shared = np.zeros(1024, np.uint8)
    encoded = tensor.tensor_map(UINT8, (64, 32), (64,), (64, 8))
    nothing = np.zeros(192, np.uint8)
    blank = nothing[-nothing.ctypes.data % 64 :][:128]
    for name, at in (("load", 0), ("store", 0)):
        with pytest.raises(tensor.Error, match="not made by"):
            tensor.tma(name, blank, (0, 0), memory, shared, at)
        with pytest.raises(tensor.Error, match="1d instruction"):
            tensor.tma(name, encoded, (0,), memory, shared, at)
        with pytest.raises(tensor.Error, match="multiple of 128"):
            tensor.tma(name, encoded, (0, 0), memory, shared, 64)
        with pytest.raises(tensor.Error, match="outside of the block"):
            tensor.tma(name, encoded, (0, 0), memory, shared, 640)
        with pytest.raises(tensor.Error, match="outside of every allocation"):
            tensor.tma(name, encoded, (0, 0), memory, shared, at)


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
