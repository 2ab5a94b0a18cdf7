"""Memory of the emulated GPU: its limits, its addresses, and copies that stay inside."""

from __future__ import annotations

import ctypes

import numpy as np
import pytest


def _free(cuda) -> int:
    unused, total = ctypes.c_size_t(), ctypes.c_size_t()
    cuda("cudaMemGetInfo", ctypes.byref(unused), ctypes.byref(total))
    assert 0 <= unused.value <= total.value
    return unused.value


def _number(cuda, *call) -> int:
    with pytest.raises(Exception) as caught:
        cuda(*call)
    return caught.value.number


def test_what_is_uploaded_comes_back(cuda) -> None:
    array = np.random.default_rng(0).integers(0, 256, 100_003, dtype=np.uint8)
    pointer = cuda.upload(array)
    other = cuda.malloc(array.nbytes)
    cuda.copy(other, pointer, array.nbytes, 3)
    cuda.copy(other, pointer, array.nbytes, 4)
    assert (cuda.download(other, array) == array).all()
    cuda("cudaFree", pointer)
    cuda("cudaFree", other)


def test_new_memory_is_nan_and_aligned(cuda) -> None:
    pointer = cuda.malloc(40)
    assert pointer.value % 256 == 0
    assert np.isnan(cuda.download(pointer, np.zeros(10, np.float32))).all()
    cuda("cudaFree", pointer)


def test_memory_ends_at_the_size_that_was_installed(cuda) -> None:
    before = _free(cuda)
    with pytest.raises(Exception, match="bytes do not fit") as caught:
        cuda.malloc(before + 1)
    assert caught.value.number == 2
    pointer = cuda.malloc(before)
    assert _free(cuda) == 0
    with pytest.raises(Exception, match="bytes do not fit"):
        cuda.malloc(1)
    cuda("cudaFree", pointer)
    assert _free(cuda) == before
    # The error was the call's, not the device's.
    assert cuda.library.cudaGetLastError() == 2
    assert cuda.library.cudaGetLastError() == 0


def test_nothing_is_allocated_for_no_bytes(cuda) -> None:
    assert cuda.malloc(0).value is None
    cuda("cudaFree", None)


def test_freed_memory_is_gone(cuda) -> None:
    array = np.arange(64, dtype=np.int32)
    pointer = cuda.upload(array)
    cuda("cudaFree", pointer)
    assert _number(cuda, "cudaFree", pointer) == 1
    with pytest.raises(Exception, match="leaves its allocation"):
        cuda.download(pointer, array)
    assert cuda.malloc(array.nbytes).value != pointer.value


@pytest.mark.parametrize(("offset", "size"), [(0, 257), (-1, 4), (256, 1), (1, 256), (1 << 40, 1)])
def test_copies_stay_inside_one_allocation(cuda, offset: int, size: int) -> None:
    pointer = cuda.malloc(256)
    host = np.zeros(512, np.uint8)
    place = ctypes.c_void_p(pointer.value + offset)
    for call in (
        lambda: cuda.copy(place, host.ctypes.data, size, 1),
        lambda: cuda.copy(host.ctypes.data, place, size, 2),
    ):
        with pytest.raises(Exception, match="leaves its allocation") as caught:
            call()
        assert caught.value.number == 1
    cuda("cudaFree", pointer)


def test_a_copy_says_what_it_is(cuda) -> None:
    pointer = cuda.malloc(64)
    host = np.zeros(64, np.uint8)
    for to, source, kind in [
        (pointer, host.ctypes.data, 2),
        (host.ctypes.data, pointer, 1),
        (host.ctypes.data, pointer, 3),
        (pointer, pointer, 9),
    ]:
        with pytest.raises(Exception, match="said to be of kind"):
            cuda.copy(to, source, 64, kind)
    cuda("cudaFree", pointer)


def test_host_memory(cuda) -> None:
    pointer = cuda.made("cudaMallocHost", ctypes.c_size_t(64))
    ctypes.memset(pointer, 7, 64)
    device = cuda.malloc(64)
    cuda.copy(device, pointer, 64, 1)
    assert (cuda.download(device, np.zeros(64, np.uint8)) == 7).all()
    cuda("cudaFreeHost", pointer)
    cuda("cudaFree", device)


def test_device_addresses_mean_nothing_to_the_host(cuda) -> None:
    # Above what 48-bit address spaces map, and below the windows of shared and local memory.
    assert 1 << 48 <= cuda.malloc(4).value < 1 << 56


def test_attributes(cuda) -> None:
    def attribute(number: int) -> int:
        value = ctypes.c_int()
        cuda("cudaDeviceGetAttribute", ctypes.byref(value), number, 0)
        return value.value

    assert (attribute(75), attribute(76)) == (9, 0)
    assert attribute(97) == 232448 and attribute(8) == 49152
    assert attribute(1) == 1024 and attribute(10) == 32
    assert _number(cuda, "cudaDeviceGetAttribute", ctypes.byref(ctypes.c_int()), 1, 1) == 101
    assert _number(cuda, "cudaDeviceGetAttribute", ctypes.byref(ctypes.c_int()), 9999, 0) == 1
    properties = (ctypes.c_uint8 * 1040)(*[0xAB] * 1040)
    cuda("cudaGetDeviceProperties", properties, 0)
    assert bytes(properties)[:12] == b"fewbits emul"
    assert int.from_bytes(bytes(properties)[288:296], "little") == 1 << 28
    assert bytes(properties)[1008:] == b"\xab" * 32
