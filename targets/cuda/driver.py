"""What TVM's CUDA runtime needs before it loads: NVIDIA's driver, or something in its place.

TVM opens its CUDA runtime when it is imported, and goes on without a word where that fails. Without
it, compiled modules hold source text instead of machine code. `prepare` makes it load everywhere:
over the machine's driver, or over libraries of ours that say that there is no device, until
`emulator.install` gives them one.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ...errors import FewbitsError
from .emulator import build
from .toolchain import pip_library

#: ``emulator`` or ``emulator:sm_80``: the GPU that everything runs on, whatever the machine has.
VARIABLE = "FEWBITS_CUDA"

_RUNTIME = "libcudart.so.13"
_lock = threading.RLock()
_loaded = False
_replacement: ctypes.CDLL | None = None


def prepare() -> None:
    """Loads TVM's CUDA runtime over what the machine has, or the emulator where that is asked for.

    Everything that compiles for GPUs or runs on them calls it first. Further calls do nothing.

    Raises:
        FewbitsError: ``bad-architecture`` (in `VARIABLE`), ``no-cuda-runtime``, ``no-emulator``,
            ``compiler-missing``, ``compiler-failed``: zig builds our libraries once.
    """
    architecture = requested_emulator()
    if architecture is None:
        load(emulated=False)
    elif not is_emulated():
        from .emulator import install

        install(architecture)


def requested_emulator() -> str | None:
    """The architecture that the environment variable asks the emulator for, or None.

    Raises:
        FewbitsError: ``bad-architecture``.
    """
    name, _, architecture = os.environ.get(VARIABLE, "").partition(":")
    if not name:
        return None
    if name != "emulator":
        raise FewbitsError(
            "bad-architecture",
            f"there is no GPU {name!r}",
            where=VARIABLE,
            hint="it is 'emulator', 'emulator:sm_80' or the like, or nothing for the machine's GPU",
        )
    return architecture or "sm_90a"


def is_emulated() -> bool:
    """Whether the process has an emulated GPU."""
    if _replacement is None:
        return False
    return _replacement.cudaGetDeviceCount(ctypes.byref(ctypes.c_int())) == 0


def replacement() -> ctypes.CDLL | None:
    """Our driver library, or None where it is not loaded."""
    return _replacement


def load(emulated: bool) -> ctypes.CDLL | None:
    """Loads TVM's CUDA runtime, once for each process.

    Args:
        emulated: whether it must be over our libraries, even where there is a driver.

    Returns:
        Our driver library, or None where NVIDIA's is in use.

    Raises:
        FewbitsError: ``no-emulator`` where TVM has loaded NVIDIA's driver and `emulated` is asked
            for; ``no-cuda-runtime``; ``compiler-missing``, ``compiler-failed``.
    """
    global _loaded, _replacement
    with _lock:
        if not _loaded:
            if not _has_runtime():
                if not emulated and _load_driver():
                    _load_runtime()
                else:
                    _replacement = _load_replacement()
            _loaded = True
        if emulated and _replacement is None:
            raise FewbitsError(
                "no-emulator",
                "TVM runs on NVIDIA's driver already, so the emulated GPU cannot take its place",
                hint=f"set {VARIABLE}=emulator, and install it before TVM is imported",
            )
        return _replacement


def _has_runtime() -> bool:
    """Whether TVM was imported, and found a driver."""
    if "tvm" not in sys.modules:
        return False
    import tvm

    return tvm.get_global_func("ffi.Module.create.cuda", allow_missing=True) is not None


def _load_replacement() -> ctypes.CDLL:
    """Our libraries, and a copy of TVM's CUDA runtime that calls them."""
    cuda, _ = (ctypes.CDLL(str(library)) for library in build.driver_libraries())
    with _without_cuda():
        importlib.import_module("tvm")
    _open(build.tvm_runtime(_runtime_file()))
    return cuda


def _load_driver() -> bool:
    """Whether the machine has NVIDIA's driver; then it and CUDA's run-time library are loaded."""
    try:
        ctypes.CDLL("libcuda.so.1", mode=ctypes.RTLD_GLOBAL)
    except OSError:
        return False
    found = pip_library(_RUNTIME)
    try:
        ctypes.CDLL(_RUNTIME if found is None else str(found), mode=ctypes.RTLD_GLOBAL)
    except OSError as error:
        raise FewbitsError(
            "no-cuda-runtime",
            f"there is a GPU, but CUDA's run-time library cannot be loaded: {error}",
            hint="pip install 'fewbits[cuda]'",
        ) from error
    return True


def _load_runtime() -> None:
    """Importing TVM loads its CUDA runtime; where it was imported before, this does."""
    importlib.import_module("tvm")
    if not _has_runtime():
        _open(_runtime_file())


def _runtime_file() -> Path:
    from tvm.base import _LOADED_LIBS

    return Path(_LOADED_LIBS["tvm_runtime"]._name).resolve().parent / "libtvm_runtime_cuda.so"


def _open(library: Path) -> None:
    from tvm.base import _LOADED_LIBS

    try:
        _LOADED_LIBS["tvm_runtime_cuda"] = ctypes.CDLL(str(library))
    except OSError as error:
        raise FewbitsError(
            "no-cuda-runtime",
            f"TVM's CUDA runtime cannot be loaded: {error}",
            hint="GPUs need Linux and the apache-tvm package that fewbits asks for",
        ) from error


@contextlib.contextmanager
def _without_cuda() -> Iterator[None]:
    """TVM, if it is imported inside for the first time, does not open its CUDA runtime."""
    from tvm_ffi import libinfo

    load = libinfo.load_lib_ctypes

    def load_all_but_cuda(package: str, target_name: str, *args: Any, **kwargs: Any) -> Any:
        if target_name == "tvm_runtime_cuda":
            raise OSError("the emulated GPU takes its place")
        return load(package, target_name, *args, **kwargs)

    libinfo.load_lib_ctypes = load_all_but_cuda
    try:
        yield
    finally:
        libinfo.load_lib_ctypes = load
