"""The emulated GPU's driver, called as C programs call CUDA."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from fewbits.targets.cuda import driver, emulator, testing
from fewbits.targets.cuda.compile import fatbin

MEMORY = 1 << 28

KERNELS = """
extern "C" __global__ void add(int *x, int amount, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) x[i] += amount;
}
extern "C" __global__ void wander(int *x, long long by) { x[by] = 1; }
extern "C" __global__ void reverse(int *x) {
    extern __shared__ int kept[];
    kept[threadIdx.x] = x[threadIdx.x];
    __syncthreads();
    x[threadIdx.x] = kept[blockDim.x - 1 - threadIdx.x];
}
"""

HOST_TO_DEVICE, DEVICE_TO_HOST, DEVICE_TO_DEVICE, BY_ADDRESS = 1, 2, 3, 4


class CudaError(Exception):
    """A call's number."""

    def __init__(self, number: int, text: str) -> None:
        super().__init__(f"{number}: {text}")
        self.number = number


class Attribute(ctypes.Structure):
    _fields_ = [("id", ctypes.c_int), ("padding", ctypes.c_int), ("value", ctypes.c_int * 16)]


class Config(ctypes.Structure):
    _fields_ = [
        ("grid", ctypes.c_uint * 3),
        ("block", ctypes.c_uint * 3),
        ("shared", ctypes.c_uint),
        ("stream", ctypes.c_void_p),
        ("attributes", ctypes.POINTER(Attribute)),
        ("count", ctypes.c_uint),
    ]


class Cuda:
    """Calls by name; numbers other than 0 are raised."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self.library = library
        library.cudaGetErrorString.restype = ctypes.c_char_p
        library.cudaGetErrorName.restype = ctypes.c_char_p

    def __call__(self, name: str, *arguments: Any) -> None:
        number = getattr(self.library, name)(*arguments)
        if number:
            raise CudaError(number, self.library.cudaGetErrorString(number).decode())

    def made(self, name: str, *arguments: Any) -> ctypes.c_void_p:
        """What a call returns through its first parameter."""
        handle = ctypes.c_void_p()
        self(name, ctypes.byref(handle), *arguments)
        return handle

    def captured(self, stream: ctypes.c_void_p) -> ctypes.c_void_p:
        graph = ctypes.c_void_p()
        self("cudaStreamEndCapture", stream, ctypes.byref(graph))
        return graph

    def malloc(self, size: int) -> ctypes.c_void_p:
        return self.made("cudaMalloc", ctypes.c_size_t(size))

    def upload(self, array: np.ndarray, stream: Any = None) -> ctypes.c_void_p:
        pointer = self.malloc(array.nbytes)
        self.copy(pointer, array.ctypes.data, array.nbytes, HOST_TO_DEVICE, stream)
        return pointer

    def download(self, pointer: ctypes.c_void_p, like: np.ndarray) -> np.ndarray:
        array = np.zeros_like(like)
        self.copy(array.ctypes.data, pointer, array.nbytes, DEVICE_TO_HOST)
        return array

    def copy(self, to: Any, source: Any, size: int, kind: int, stream: Any = None) -> None:
        to, source = (
            p if isinstance(p, ctypes.c_void_p) else ctypes.c_void_p(p) for p in (to, source)
        )
        self("cudaMemcpyAsync", to, source, ctypes.c_size_t(size), kind, stream)

    def module(self, architecture: str = "sm_90a", source: str = KERNELS) -> ctypes.c_void_p:
        return self.made("cuModuleLoadData", fatbin(source, architecture))

    def function(self, module: ctypes.c_void_p, name: str) -> ctypes.c_void_p:
        return self.made("cuModuleGetFunction", module, name.encode())

    def launch(
        self,
        function: ctypes.c_void_p,
        *parameters: Any,
        grid: int = 1,
        block: int = 32,
        shared: int = 0,
        stream: Any = None,
        attributes: tuple[tuple[int, int], ...] = (),
    ) -> None:
        pointers = (ctypes.c_void_p * len(parameters))(
            *(ctypes.cast(ctypes.byref(p), ctypes.c_void_p).value for p in parameters)
        )
        array = (Attribute * max(1, len(attributes)))()
        for place, (number, value) in enumerate(attributes):
            array[place] = Attribute(number, 0, (ctypes.c_int * 16)(value, 1, 1))
        config = Config((grid, 1, 1), (block, 1, 1), shared, stream, array, len(attributes))
        self("cuLaunchKernelEx", ctypes.byref(config), function, pointers, None)

    def add(self, function: Any, pointer: Any, amount: int, n: int, stream: Any = None) -> None:
        numbers = (ctypes.c_int(amount), ctypes.c_int(n))
        self.launch(function, pointer, *numbers, grid=-(-n // 32), stream=stream)


@pytest.fixture
def cuda(_kept_between_runs: None) -> Iterator[Cuda]:
    reason = testing.no_compiler()
    if reason is not None:
        pytest.skip(reason)
    driver.prepare()
    library = driver.replacement()
    if library is None:
        pytest.skip("TVM runs on NVIDIA's driver: the emulated GPU is not loaded")
    emulator.install("sm_90a", memory=MEMORY)
    emulator.reset()
    yield Cuda(library)
    emulator.reset()
    emulator.install("sm_90a")
