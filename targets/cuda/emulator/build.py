"""The emulator's shared libraries, built by zig on first use and kept in the user's cache."""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import tempfile
from collections.abc import Sequence
from pathlib import Path

from ...mcu.toolchain import cache_folder, compiler_command, run_command

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


@functools.lru_cache
def driver_libraries() -> tuple[Path, Path]:
    """``libcuda.so.1`` and ``libcudart.so.13``, in the order in which they have to be loaded.

    Raises:
        FewbitsError: ``compiler-missing``, ``compiler-failed``.
    """
    everything = sorted(_DRIVER.glob("*.c"))
    (name_only,) = (source for source in everything if source.name == "cudart.c")
    exports = _DRIVER / "exports.map"
    sources = [source for source in everything if source != name_only]
    return (
        _library("libcuda.so.1", sources, exports, ["-lpthread", "-ldl"]),
        _library("libcudart.so.13", [name_only], exports),
    )


@functools.lru_cache
def core_library() -> Path:
    """The interpreter of PTX, with the meaning of its tensor instructions.

    Raises:
        FewbitsError: ``compiler-missing``, ``compiler-failed``.
    """
    sources = [*sorted((_HERE / "core").glob("*.c")), *sorted((_HERE / "tensor").glob("*.c"))]
    return _library("libfewbits_gpu.so", sources, None, ["-lm", "-lpthread"])


def _library(
    name: str, sources: Sequence[Path], exports: Path | None, libraries: Sequence[str] = ()
) -> Path:
    """A shared library; the folder it is in is named by all that decides what it is."""
    tool = compiler_command(None)
    flags = [*_FLAGS, f"-Wl,-soname,{name}"]
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
