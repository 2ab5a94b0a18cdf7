"""What TVM's CUDA runtime needs before it loads: NVIDIA's driver, or something in its place.

TVM opens its CUDA runtime when it is imported, and goes on without a word where that fails. Without
it, compiled modules hold source text instead of machine code. `prepare` makes it load everywhere:
over the machine's driver, or over a library of ours that says that there is no device.
"""

from __future__ import annotations

import ctypes
import threading
from pathlib import Path

from .emulator import build
from .toolchain import pip_library

_lock = threading.Lock()
_prepared = False


def prepare() -> None:
    """Loads TVM's CUDA runtime, whatever the machine has. Further calls do nothing.

    Raises:
        FewbitsError: ``compiler-missing``, ``compiler-failed``: zig builds our library once.
    """
    global _prepared
    with _lock:
        if not _prepared:
            _prepare()
            _prepared = True


def _prepare() -> None:
    import tvm

    if tvm.get_global_func("ffi.Module.create.cuda", allow_missing=True) is not None:
        return
    if not _load_drivers():
        for library in build.driver_libraries():
            ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL)
    from tvm.base import _LOADED_LIBS

    folder = Path(_LOADED_LIBS["tvm_runtime"]._name).resolve().parent
    library = ctypes.CDLL(str(folder / "libtvm_runtime_cuda.so"), mode=ctypes.RTLD_LOCAL)
    _LOADED_LIBS["tvm_runtime_cuda"] = library


def _load_drivers() -> bool:
    """Whether the machine has NVIDIA's driver, which is loaded then, and with it the runtime."""
    try:
        ctypes.CDLL("libcuda.so.1", mode=ctypes.RTLD_GLOBAL)
    except OSError:
        return False
    try:
        ctypes.CDLL("libcudart.so.13", mode=ctypes.RTLD_GLOBAL)
    except OSError:
        runtime = pip_library("libcudart.so.13")
        if runtime is None:
            return False
        ctypes.CDLL(str(runtime), mode=ctypes.RTLD_GLOBAL)
    return True
