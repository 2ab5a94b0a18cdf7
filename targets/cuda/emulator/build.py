"""The emulator's shared libraries, built by zig on first use and kept in the user's cache."""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import tempfile
from collections.abc import Sequence
from pathlib import Path

from ...mcu.toolchain import cache_folder, compiler_command, run_command
from .needed import rename_needed

#: Our libraries' names. NVIDIA's would do, but then whatever else in the process asks for those
#: (a torch that was built for CUDA does) would get ours, or TVM would get NVIDIA's.
REPLACED = {"libcuda.so.1": "libfbcu.so.1", "libcudart.so.13": "libfbcurt.so.13"}

_HERE = Path(__file__).parent
_DRIVER = _HERE / "driver"
_FLAGS = (
    "-std=gnu11",
    "-O2",
    "-g0",
    "-fPIC",
    "-shared",
    "-fvisibility=default",
    "-mcpu=baseline",
    "-fno-sanitize=all",
    "-Wall",
    "-Wl,--build-id=none",
)


#: Exact arithmetic, made for this machine: without its fused multiply-add every fma is a call.
_CORE_FLAGS = (
    "-mcpu=native",
    "-ffp-contract=off",
    "-fno-strict-aliasing",
    "-fno-math-errno",
    "-Wno-pass-failed",
)


@functools.lru_cache
def driver_libraries() -> tuple[Path, Path]:
    """What stands for libcuda and libcudart, in the order in which they have to be loaded.

    Raises:
        FewbitsError: ``compiler-missing``, ``compiler-failed``.
    """
    everything = sorted(_DRIVER.glob("*.c"))
    (name_only,) = (source for source in everything if source.name == "cudart.c")
    exports = _DRIVER / "exports.map"
    sources = [source for source in everything if source != name_only]
    return (
        _library(REPLACED["libcuda.so.1"], sources, exports, ["-lpthread", "-ldl"]),
        _library(REPLACED["libcudart.so.13"], [name_only], exports),
    )


@functools.lru_cache
def core_library() -> Path:
    """The interpreter of PTX, with the meaning of its tensor instructions.

    Raises:
        FewbitsError: ``compiler-missing``, ``compiler-failed``.
    """
    sources = [*sorted((_HERE / "core").glob("*.c")), *sorted((_HERE / "tensor").glob("*.c"))]
    return _library("libfewbits_gpu.so", sources, None, ["-lm", "-lpthread"], _CORE_FLAGS)


def tvm_runtime(original: Path) -> Path:
    """TVM's CUDA runtime as a copy that needs our libraries in place of NVIDIA's."""
    content = rename_needed(original.read_bytes(), REPLACED)
    folder = cache_folder() / "cuda" / f"tvm-{hashlib.sha256(content).hexdigest()[:16]}"
    library = folder / original.name
    if not library.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as work:
            product = Path(work) / original.name
            product.write_bytes(content)
            product.replace(library)
    return library


def _library(
    name: str,
    sources: Sequence[Path],
    exports: Path | None,
    libraries: Sequence[str] = (),
    extra: Sequence[str] = (),
) -> Path:
    """A shared library; the folder it is in is named by all that decides what it is."""
    tool = compiler_command(None)
    flags = [*_FLAGS, *extra, f"-Wl,-soname,{name}"]
    headers = sorted(_HERE.glob("*/*.h"))
    zig = importlib.metadata.version("ziglang")
    digest = hashlib.sha256("\0".join([zig, *flags, *libraries]).encode())
    for path in [*sources, *headers, *([exports] if exports else [])]:
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    folder = cache_folder() / "cuda" / f"emulator-{digest.hexdigest()[:16]}"
    library = folder / name
    if library.is_file():
        return library
    folder.mkdir(parents=True, exist_ok=True)
    if exports:
        flags.append(f"-Wl,--version-script={exports}")
    with tempfile.TemporaryDirectory(dir=folder) as work:
        product = Path(work) / name
        run_command([*tool, *flags, *map(str, sources), *libraries, "-o", str(product)])
        product.replace(library)
    return library
