"""Running one kernel from Python: for tests, and for those who write kernels."""

from __future__ import annotations

import ctypes
import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any, Union

import numpy as np

from ....errors import FewbitsError
from .build import core_library
from .program import translate

#: CU_TENSOR_MAP_DATA_TYPE_..., by the names of numpy and ml_dtypes; 8-bit types are all UINT8.
_DATA_TYPES = {
    "uint16": 1, "uint32": 2, "int32": 3, "uint64": 4, "int64": 5, "float16": 6, "float32": 7,
    "float64": 8, "bfloat16": 9,
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class TensorMap:
    """A tensor map as an argument, over a whole contiguous array.

    Attributes:
        array: up to five dimensions, outermost first.
        box: what one copy moves, in elements, outermost first.
        swizzle: CU_TENSOR_MAP_SWIZZLE_...: 0 none, 1 32 bytes, 2 64 bytes, 3 128 bytes.
    """

    array: np.ndarray
    box: tuple[int, ...]
    swizzle: int = 0


#: What a kernel takes: arrays are passed as addresses and changed in place; numpy scalars and bytes
#: as they are; Python's int as 32 bits (64 where it needs them), float as f32.
Argument = Union[np.ndarray, np.generic, TensorMap, bytes, int, float]  # noqa: UP007

STATUS = (
    "ok", "invalid-image", "invalid-launch", "illegal-address", "misaligned", "uninitialised",
    "deadlock", "race", "trap", "unsupported", "misuse", "limit", "no-memory",
)  # fmt: skip
_OPTIONS = ("shared_init", "races", "async_", "delay", "max_instructions")


class _Config(ctypes.Structure):
    _fields_ = (
        ("grid", ctypes.c_uint32 * 3),
        ("block", ctypes.c_uint32 * 3),
        ("cluster", ctypes.c_uint32 * 3),
        ("shared", ctypes.c_uint32),
        ("params", ctypes.c_void_p),
        ("buffer", ctypes.c_void_p),
        ("buffer_size", ctypes.c_size_t),
    )


class _Limits(ctypes.Structure):
    _fields_ = (
        ("major", ctypes.c_int32),
        ("minor", ctypes.c_int32),
        ("multiprocessors", ctypes.c_int32),
        ("threads", ctypes.c_int32),
        ("shared", ctypes.c_int64),
        ("shared_default", ctypes.c_int64),
        ("cluster", ctypes.c_int32),
    )


class _Attributes(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_char_p),
        ("param_count", ctypes.c_int32),
        ("param_sizes", ctypes.POINTER(ctypes.c_uint32)),
        ("param_offsets", ctypes.POINTER(ctypes.c_uint32)),
        *((name, ctypes.c_uint32) for name in ("param_bytes", "shared", "local", "threads")),
        ("block", ctypes.c_uint32 * 3),
        ("cluster", ctypes.c_uint32 * 3),
        ("registers", ctypes.c_uint32),
        ("ptx", ctypes.c_int32),
        ("target", ctypes.c_int32),
    )


@dataclasses.dataclass(frozen=True)
class Statistics:
    """What a launch did: instructions of warps, of lanes, bytes asked for, tensor instructions."""

    warp_instructions: int
    lane_instructions: int
    global_load_bytes: int
    global_store_bytes: int
    tensor_instructions: int


class LaunchError(FewbitsError):
    """A kernel did what no kernel may do; `status` is one of `STATUS`."""

    def __init__(self, status: str, message: str) -> None:
        super().__init__("emulated-gpu-error", f"{status}: {message}")
        self.status = status


@functools.lru_cache
def _core() -> ctypes.CDLL:
    library = ctypes.CDLL(str(core_library()))
    pointer, text = ctypes.c_void_p, ctypes.c_char_p
    library.fb_gpu_create.restype = pointer
    library.fb_gpu_create.argtypes = [pointer]
    library.fb_gpu_destroy.argtypes = [pointer]
    library.fb_gpu_set_option.argtypes = [pointer, ctypes.c_int, ctypes.c_int64]
    library.fb_gpu_register.argtypes = [pointer, ctypes.c_uint64, pointer, ctypes.c_uint64, text]
    library.fb_program_load.argtypes = [
        pointer,
        pointer,
        ctypes.c_size_t,
        pointer,
        pointer,
        ctypes.c_size_t,
    ]
    library.fb_program_unload.argtypes = [pointer]
    library.fb_program_kernel.restype = pointer
    library.fb_program_kernel.argtypes = [pointer, text]
    library.fb_kernel_get_attributes.argtypes = [pointer, pointer]
    library.fb_tensor_map_encode.restype = text
    library.fb_launch.argtypes = [pointer, pointer, pointer, pointer, ctypes.c_size_t]
    return library


def load(image: bytes, capability: int = 90) -> str | None:
    """Loads and unloads a program; what the loader says against it, None if nothing."""
    core = _core()
    limits = _Limits()
    core.fb_gpu_limits_for(capability, ctypes.byref(limits))
    gpu = core.fb_gpu_create(ctypes.byref(limits))
    program, error = ctypes.c_void_p(), ctypes.create_string_buffer(1000)
    try:
        status = core.fb_program_load(gpu, image, len(image), ctypes.byref(program), error, 1000)
        if not status:
            core.fb_program_unload(program)
        return error.value.decode(errors="replace") if status else None
    finally:
        core.fb_gpu_destroy(gpu)


def launch(
    text: str,
    kernel: str,
    grid: int | Sequence[int],
    block: int | Sequence[int],
    args: Sequence[Argument],
    *,
    shared: int = 0,
    cluster: int | Sequence[int] | None = None,
    options: Mapping[str, int] | None = None,
    capability: int | None = None,
) -> Statistics:
    """Runs one kernel of a PTX text.

    Args:
        text: PTX.
        kernel: the entry's name.
        grid, block, cluster: numbers of blocks, of threads, of blocks of a cluster; up to three.
        args: the kernel's arguments; arrays must be contiguous and are changed in place.
        shared: bytes of dynamic shared memory.
        options: ``shared_init``, ``races``, ``async_`` (checks, 0 or 1), ``delay`` (rounds until a
            bulk copy lands), ``max_instructions``.
        capability: of the device, 90 for 9.0; the text's own target by default.

    Raises:
        LaunchError: the kernel misbehaved; the text says where.
        FewbitsError: ``ptx-syntax``, ``ptx-unsupported``.
    """
    core = _core()
    image = translate(text)
    number = capability or int.from_bytes(image[12:16], "little")
    limits = _Limits()
    core.fb_gpu_limits_for(number, ctypes.byref(limits))
    gpu = core.fb_gpu_create(ctypes.byref(limits))
    program, error = ctypes.c_void_p(), ctypes.create_string_buffer(4000)
    try:
        for name, value in (options or {}).items():
            core.fb_gpu_set_option(gpu, _OPTIONS.index(name), value)
        _check(
            core.fb_program_load(gpu, image, len(image), ctypes.byref(program), error, 4000), error
        )
        handle = core.fb_program_kernel(program, kernel.encode())
        if not handle:
            raise LaunchError("invalid-launch", f"there is no kernel {kernel}")
        attributes = _Attributes()
        core.fb_kernel_get_attributes(handle, ctypes.byref(attributes))
        if attributes.param_count != len(args):
            raise LaunchError(
                "invalid-launch",
                f"{kernel} takes {attributes.param_count} arguments, {len(args)} were given",
            )
        values: list[Any] = []
        for position, argument in enumerate(args):
            size = attributes.param_sizes[position]
            values.append(_argument(core, gpu, argument, size, f"argument {position}"))
        pointers = (ctypes.c_void_p * max(1, len(values)))(
            *(ctypes.addressof(value) for value in values)
        )
        config = _Config(_three(grid), _three(block), _three(cluster or 0), shared)
        config.params = ctypes.addressof(pointers)
        counts = (ctypes.c_uint64 * 5)()
        status = core.fb_launch(handle, ctypes.byref(config), counts, error, 4000)
        _check(status, error)
        return Statistics(*counts)
    finally:
        core.fb_program_unload(program)
        core.fb_gpu_destroy(gpu)


def _check(status: int, error: ctypes.Array[ctypes.c_char]) -> None:
    if status:
        raise LaunchError(STATUS[status], error.value.decode(errors="replace"))


def _three(counts: int | Sequence[int]) -> ctypes.Array[ctypes.c_uint32]:
    values = [counts] if isinstance(counts, int) else list(counts)
    if values == [0]:
        return (ctypes.c_uint32 * 3)(0, 0, 0)
    return (ctypes.c_uint32 * 3)(*[*values, 1, 1][:3])


def _register(core: ctypes.CDLL, gpu: int, array: np.ndarray, label: str) -> int:
    if not array.flags.c_contiguous:
        raise ValueError(f"{label} is not contiguous")
    address = array.ctypes.data
    if array.nbytes and core.fb_gpu_register(gpu, address, address, array.nbytes, label.encode()):
        raise ValueError(f"{label} overlaps another one")
    return address


def _tensor_map(core: ctypes.CDLL, wanted: TensorMap, address: int) -> bytes:
    array, rank = wanted.array, wanted.array.ndim
    room = ctypes.create_string_buffer(128 + 64)
    start = ctypes.addressof(room)
    start += -start % 64
    error = core.fb_tensor_map_encode(
        ctypes.c_void_p(start),
        _DATA_TYPES.get(array.dtype.name, 0),
        rank,
        ctypes.c_uint64(address),
        (ctypes.c_uint64 * rank)(*reversed(array.shape)),
        (ctypes.c_uint64 * max(1, rank - 1))(*list(reversed(array.strides))[1:]),
        (ctypes.c_uint32 * rank)(*reversed(wanted.box)),
        (ctypes.c_uint32 * rank)(*([1] * rank)),
        0,
        wanted.swizzle,
        0,
        0,
    )
    if error:
        raise ValueError(error.decode())
    return ctypes.string_at(start, 128)


def _argument(core: ctypes.CDLL, gpu: int, argument: Argument, size: int, label: str) -> Any:
    if isinstance(argument, np.ndarray):
        data = _register(core, gpu, argument, label).to_bytes(8, "little")
    elif isinstance(argument, TensorMap):
        data = _tensor_map(core, argument, _register(core, gpu, argument.array, label))
    elif isinstance(argument, np.generic):
        data = argument.tobytes()
    elif isinstance(argument, int):
        data = (argument & ((1 << 8 * size) - 1)).to_bytes(size, "little")
    elif isinstance(argument, float):
        data = np.array(argument, {4: "f4", 8: "f8"}[size]).tobytes()
    else:
        data = argument
    if len(data) != size:
        raise ValueError(f"{label} has {len(data)} bytes, the kernel takes {size}")
    return (ctypes.c_char * size).from_buffer_copy(data)
