"""Modules and launches through the driver: what is checked, and what an error leaves behind."""

from __future__ import annotations

import ctypes

import numpy as np
import pytest
from fewbits.targets.cuda import emulator
from fewbits.targets.cuda.compile import fatbin


def _fails(cuda, number: int, match: str | None, call) -> None:
    with pytest.raises(Exception, match=match) as caught:
        call()
    assert caught.value.number == number


def test_a_kernel_runs_on_what_it_was_given(cuda) -> None:
    array = np.arange(1000, dtype=np.int32)
    pointer = cuda.upload(array)
    function = cuda.function(cuda.module(), "add")
    cuda.add(function, pointer, 5, 900)
    expected = array + 5 * (array < 900)
    assert (cuda.download(pointer, array) == expected).all()
    assert emulator.statistics().launches == 1
    assert emulator.statistics().warp_instructions > 0


def test_a_module_without_code_for_the_device(cuda) -> None:
    emulator.install("sm_80")
    _fails(cuda, 209, "no PTX for sm_80: .*sm_89", lambda: cuda.module("sm_89"))


def test_older_ptx_runs_on_a_newer_device(cuda) -> None:
    pointer = cuda.upload(np.zeros(32, np.int32))
    cuda.add(cuda.function(cuda.module("sm_80"), "add"), pointer, 3, 32)
    assert (cuda.download(pointer, np.zeros(32, np.int32)) == 3).all()


def test_machine_code_alone_is_refused(cuda) -> None:
    _fails(
        cuda,
        209,
        "runs PTX",
        lambda: cuda.made("cuModuleLoadData", b"\x7fELF" + b"\0" * 64),
    )


def test_damaged_code_is_refused(cuda) -> None:
    data = bytearray(fatbin('extern "C" __global__ void k() {}', "sm_90a"))
    data[4] = 9
    _fails(cuda, 200, "contradicts", lambda: cuda.made("cuModuleLoadData", bytes(data)))
    _fails(cuda, 218, None, lambda: cuda.made("cuModuleLoadData", b"this is no PTX"))


def test_names_and_handles_are_checked(cuda) -> None:
    module = cuda.module()
    _fails(cuda, 500, "no kernel nothing", lambda: cuda.function(module, "nothing"))
    cuda("cuModuleUnload", module)
    _fails(cuda, 400, "no such module", lambda: cuda("cuModuleUnload", module))
    _fails(cuda, 400, "no such module", lambda: cuda.function(module, "add"))
    _fails(cuda, 400, "no such function", lambda: cuda.launch(module))


def test_shared_memory_beyond_48_kib_is_asked_for(cuda) -> None:
    function = cuda.function(cuda.module(), "reverse")
    array = np.arange(64, dtype=np.int32)
    pointer = cuda.upload(array)
    cuda.launch(function, pointer, block=64, shared=256)
    assert (cuda.download(pointer, array) == array[::-1]).all()
    _fails(
        cuda,
        1,
        "49152 are allowed",
        lambda: cuda.launch(function, pointer, block=64, shared=100_000),
    )
    _fails(cuda, 1, "where a block has", lambda: cuda("cuFuncSetAttribute", function, 8, 232_449))
    cuda("cuFuncSetAttribute", function, 8, 232_448)
    cuda.launch(function, pointer, block=64, shared=232_448)
    assert (cuda.download(pointer, array) == array).all()


def test_launches_that_cannot_be(cuda) -> None:
    function = cuda.function(cuda.module(), "add")
    pointer = cuda.upload(np.zeros(32, np.int32))
    numbers = (ctypes.c_int(1), ctypes.c_int(32))
    for block in (0, 1025):
        _fails(cuda, 1, None, lambda b=block: cuda.launch(function, pointer, *numbers, block=b))
    _fails(cuda, 1, None, lambda: cuda.launch(function, pointer, *numbers, grid=0))
    _fails(
        cuda,
        801,
        "cooperative",
        lambda: cuda.launch(function, pointer, *numbers, attributes=((2, 1),)),
    )
    clusters = {"attributes": ((4, 16),), "grid": 16}
    _fails(cuda, 912, "16 blocks", lambda: cuda.launch(function, pointer, *numbers, **clusters))
    cuda("cuFuncSetAttribute", function, 14, 1)
    cuda.launch(function, pointer, *numbers, **clusters)
    # None of the refused launches has harmed the device.
    assert (cuda.download(pointer, np.zeros(32, np.int32)) == 1).all()


def test_a_fault_stays_until_reset(cuda) -> None:
    module = cuda.module()
    pointer = cuda.upload(np.zeros(32, np.int32))
    wander = cuda.function(module, "wander")
    _fails(cuda, 700, None, lambda: cuda.launch(wander, pointer, ctypes.c_longlong(1 << 20)))
    text = emulator.fault()
    assert text is not None and "wander" in text
    for call in (
        lambda: cuda.malloc(4),
        lambda: cuda.download(pointer, np.zeros(32, np.int32)),
        lambda: cuda("cudaStreamSynchronize", None),
        lambda: cuda.function(module, "add"),
    ):
        with pytest.raises(Exception) as caught:
            call()
        assert caught.value.number == 700 and text in str(caught.value)
    assert cuda.library.cudaPeekAtLastError() == 700
    assert cuda.library.cudaGetLastError() == cuda.library.cudaGetLastError() == 700
    # What TVM does while an exception is under way still works.
    cuda("cudaSetDevice", 0)
    cuda("cudaFree", pointer)
    emulator.reset()
    assert emulator.fault() is None
    cuda("cudaFree", cuda.malloc(4))


@pytest.mark.parametrize("by", [-1, 32, 1 << 40])
def test_writing_beside_an_allocation_is_a_fault(cuda, by: int) -> None:
    pointer = cuda.upload(np.zeros(32, np.int32))
    cuda.upload(np.zeros(32, np.int32))
    wander = cuda.function(cuda.module(), "wander")
    _fails(cuda, 700, None, lambda: cuda.launch(wander, pointer, ctypes.c_longlong(by)))


def test_the_architecture_can_change(cuda) -> None:
    modern = cuda.module("sm_90a")
    pointer = cuda.upload(np.zeros(32, np.int32))
    emulator.install("sm_80")
    _fails(cuda, 209, "no PTX for sm_80", lambda: cuda.module("sm_90a"))
    cuda.add(cuda.function(cuda.module("sm_80"), "add"), pointer, 1, 32)
    # What was loaded before runs as before, on the same memory.
    cuda.add(cuda.function(modern, "add"), pointer, 10, 32)
    assert (cuda.download(pointer, np.zeros(32, np.int32)) == 11).all()


def test_names_of_errors(cuda) -> None:
    name = ctypes.c_char_p()
    cuda("cuGetErrorName", 209, ctypes.byref(name))
    assert name.value == b"CUDA_ERROR_NO_BINARY_FOR_GPU"
    assert cuda.library.cudaGetErrorName(2) == b"cudaErrorMemoryAllocation"
    assert cuda.library.cudaGetErrorString(0) == b"no error"
    assert cuda.library.cudaGetErrorName(12345) == b"cudaErrorUnknown"
