"""The emulator's shared libraries, built by zig on first use and kept in the user's cache."""

from __future__ import annotations

import hashlib
import tempfile
from pathlib import Path

from ...mcu.toolchain import cache_folder, compiler_command, run_command

_DRIVER = Path(__file__).parent / "driver"
_FLAGS = ("-std=c11", "-O2", "-g0", "-fPIC", "-shared", "-mcpu=baseline", "-fno-sanitize=all")


def driver_libraries() -> tuple[Path, Path]:
    """``libcuda.so.1`` and ``libcudart.so.13``, in the order in which they have to be loaded.

    Raises:
        FewbitsError: ``compiler-missing``, ``compiler-failed``.
    """
    cuda = _library("libcuda.so.1", [_DRIVER / "cuda.c"])
    cudart = _library("libcudart.so.13", [_DRIVER / "cudart.c"], _DRIVER / "libcudart.map")
    return cuda, cudart


def _library(name: str, sources: list[Path], version_script: Path | None = None) -> Path:
    inputs = [*sources, *([version_script] if version_script else [])]
    tool = compiler_command(None)
    flags = [*_FLAGS, f"-Wl,-soname,{name}", "-Wl,--build-id=none"]
    digest = hashlib.sha256("\0".join(flags).encode())
    for path in inputs:
        digest.update(path.read_bytes())
    folder = cache_folder() / "cuda" / f"emulator-{digest.hexdigest()[:16]}"
    library = folder / name
    if library.is_file():
        return library
    folder.mkdir(parents=True, exist_ok=True)
    if version_script:
        flags.append(f"-Wl,--version-script={version_script}")
    with tempfile.TemporaryDirectory(dir=folder) as work:
        product = Path(work) / name
        run_command([*tool, *flags, *map(str, sources), "-o", str(product)])
        product.replace(library)
    return library
