"""Gives the process the emulated GPU: afterwards ``tvm.cuda(0)`` is one.

TVM neither knows nor asks: it calls the functions of CUDA's driver, and those are ours. Modules are
translated from their PTX when they are loaded, for the architecture that is installed then.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import functools
import threading
from collections.abc import Iterator
from typing import Any

from ....errors import FewbitsError
from ..fatbin import capability, entries, is_fatbin, ptx_for
from . import build

#: Architectures with an interpreter: the instructions of older ones are subsets.
_OLDEST, _LATEST = 80, 90

_INVALID_IMAGE, _NO_BINARY, _INVALID_PTX, _UNKNOWN = 200, 209, 218, 999
_OPTIONS = {"shared_initialized": 0, "races": 1, "asynchronous": 2, "delay": 3, "limit": 4}

_Translate = ctypes.CFUNCTYPE(
    ctypes.c_int,
    ctypes.c_void_p,
    ctypes.c_uint64,
    ctypes.c_int32,
    ctypes.c_int32,
    ctypes.POINTER(ctypes.c_void_p),
    ctypes.POINTER(ctypes.c_uint64),
    ctypes.c_void_p,
    ctypes.c_uint64,
)


@dataclasses.dataclass(frozen=True)
class Checks:
    """What the emulated GPU looks for, besides accesses outside of allocations and deadlocks.

    Attributes:
        shared_initialized: shared memory is written before it is read.
        races: two warps do not touch one place in shared memory without a barrier in between.
        asynchronous: registers of a warpgroup's product are left alone until it is waited for.
        delay: rounds until a bulk copy lands; with larger ones, missing waits are found.
        limit: warp instructions of one launch, 0 for any number.
    """

    shared_initialized: bool = True
    races: bool = False
    asynchronous: bool = True
    delay: int = 3
    limit: int = 0


@dataclasses.dataclass(frozen=True)
class Statistics:
    """Sums over the launches since the last `reset`.

    Attributes:
        launches: kernels started.
        warp_instructions: instructions that warps executed.
        lane_instructions: the same times the active lanes.
        global_load_bytes: read from global memory by threads.
        global_store_bytes: written to it.
        tensor_instructions: products on tensor cores, of a warp or a warpgroup.
    """

    launches: int
    warp_instructions: int
    lane_instructions: int
    global_load_bytes: int
    global_store_bytes: int
    tensor_instructions: int


class _Kept(threading.local):
    """Programs live until their thread translates the next."""

    program: bytes = b""


_kept = _Kept()


def install(
    architecture: str = "sm_90a", memory: int = 16 << 30, checks: Checks | None = None
) -> None:
    """Loads the emulated GPU as device 0, or changes what it is.

    Args:
        architecture: ``sm_80`` to ``sm_90a``. Modules loaded earlier stay what they are.
        memory: bytes; allocations beyond fail as on a full GPU.
        checks: None for the usual ones.

    Raises:
        FewbitsError: ``bad-architecture``, ``no-emulator``, ``no-cuda-runtime``,
            ``compiler-missing``, ``compiler-failed``.
    """
    from .. import driver

    number, specific = capability(architecture)
    if not _OLDEST <= number <= _LATEST:
        raise FewbitsError(
            "bad-architecture",
            f"the emulated GPU cannot be {architecture}",
            hint=f"it is sm_{_OLDEST} to sm_{_LATEST}a",
        )
    library = _library()
    if library is None:
        library = driver.load(emulated=True)
    assert library is not None
    core = str(build.core_library()).encode()
    error = library.fewbits_install(
        core, number, int(specific), ctypes.c_uint64(memory), _translate
    )
    if error:
        raise FewbitsError(
            "no-emulator", f"the emulated GPU does not start: {_described(library, error)}"
        )
    for name, value in dataclasses.asdict(checks or Checks()).items():
        library.fewbits_set_option(_OPTIONS[name], ctypes.c_int64(int(value)))


def reset() -> None:
    """The device works again after a fault; statistics begin anew. Memory stays as it is."""
    library = _library()
    if library is not None:
        library.fewbits_reset()


def fault() -> str | None:
    """What the kernel did after which nothing works until `reset`, or None."""
    library = _library()
    if library is None:
        return None
    text = ctypes.create_string_buffer(4096)
    if not library.fewbits_fault(text, ctypes.c_size_t(len(text))):
        return None
    return text.value.decode("utf-8", "replace")


@contextlib.contextmanager
def reporting(where: str | None = None) -> Iterator[None]:
    """Errors inside that a kernel's fault has caused become errors of fewbits; the device is reset.

    Args:
        where: what was run, for the error.

    Raises:
        FewbitsError: ``gpu-fault``.
    """
    try:
        yield
    except Exception as error:
        text = fault()
        if text is None:
            raise
        reset()
        raise FewbitsError(
            "gpu-fault",
            f"the emulated GPU stopped a kernel: {text}",
            where=where,
            hint="a defect of the kernel, or, for an instruction that is not known, the emulator",
        ) from error


def statistics() -> Statistics:
    """What has been executed since the last `reset`; zeros where there is no emulated GPU."""
    counts = (ctypes.c_uint64 * len(dataclasses.fields(Statistics)))()
    library = _library()
    if library is not None:
        library.fewbits_statistics(counts)
    return Statistics(*counts)


def _library() -> ctypes.CDLL | None:
    from .. import driver

    return driver.replacement()


def _described(library: ctypes.CDLL, error: int) -> str:
    library.cudaGetErrorString.restype = ctypes.c_char_p
    return library.cudaGetErrorString(error).decode("utf-8", "replace")


class _NoCode(Exception):
    """A module has no PTX that the device runs."""


@_Translate
def _translate(
    image: int,
    size: int,
    number: int,
    specific: int,
    program: Any,
    program_size: Any,
    text: int,
    text_size: int,
) -> int:
    """Called by the driver when a module is loaded; nothing may be raised into C."""
    try:
        _kept.program = _program(ctypes.string_at(image, size), number, bool(specific))
    except _NoCode as error:
        return _say(_NO_BINARY, str(error), text, text_size)
    except FewbitsError as error:
        code = _INVALID_IMAGE if error.code == "bad-fatbin" else _INVALID_PTX
        return _say(code, error.message, text, text_size)
    except Exception as error:
        return _say(_UNKNOWN, repr(error), text, text_size)
    program[0] = ctypes.cast(ctypes.c_char_p(_kept.program), ctypes.c_void_p).value
    program_size[0] = len(_kept.program)
    return 0


def _program(image: bytes, number: int, specific: bool) -> bytes:
    """The interpreter's form of what a module holds: a fat binary, or PTX."""
    device = f"sm_{number}{'a' if specific else ''}"
    if not is_fatbin(image):
        return _translated(image.decode("utf-8"))
    found = entries(image)
    text = ptx_for(found, number, specific)
    if text is None:
        held = ", ".join(f"{entry.kind} for {entry.architecture}" for entry in found) or "nothing"
        raise _NoCode(f"the module has no PTX for {device}: it has {held}")
    return _translated(text)


@functools.lru_cache(maxsize=256)
def _translated(text: str) -> bytes:
    from .program import translate

    return translate(text)


def _say(code: int, words: str, text: int, text_size: int) -> int:
    content = words.encode("utf-8")[: text_size - 1] + b"\0"
    ctypes.memmove(text, content, len(content))
    return code
