"""What `fewbits doctor` looks at: whether this installation can do its work, and what to do if not.

Each check stands alone and never raises: a broken installation is what it is there to describe.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

# What TVM 0.27 needs: later releases of tvm-ffi break schedules, earlier ones imports.
_PINNED = {"apache-tvm": "0.27.0.post1", "apache-tvm-ffi": "0.1.14.post1"}
_REQUIRED = {
    "torch": "pip install torch; README.md says how to have the build without CUDA",
    "onnx": "pip install onnx",
    "onnxruntime": "pip install onnxruntime",
    "ziglang": "pip install ziglang",
    "unicorn": "pip install unicorn",
}
_OPTIONAL_TOOLS = {
    "arm-none-eabi-gcc": "only for --cc: apt install gcc-arm-none-eabi",
    "riscv64-unknown-elf-gcc": "only for --cc: apt install gcc-riscv64-unknown-elf",
    "nvcc": "only for GPUs: install the CUDA toolkit",
}


@dataclasses.dataclass(frozen=True)
class Check:
    """One finding.

    Attributes:
        name: what was looked at.
        ok: whether it is as it should be.
        detail: what was found.
        hint: what to do, None when nothing needs doing. A missing optional tool is no fault, but
            has a hint.
    """

    name: str
    ok: bool
    detail: str
    hint: str | None = None


def check() -> list[Check]:
    """Looks at Python, packages, compiler, emulator and cache; a few seconds at most."""
    return [
        _python(),
        *(_package(name, f"pip install {name}=={pin}", pin) for name, pin in _PINNED.items()),
        *(_package(name, hint) for name, hint in _REQUIRED.items()),
        _cache(),
        _firmware(),
        *(_tool(name, hint) for name, hint in _OPTIONAL_TOOLS.items()),
    ]


def _python() -> Check:
    version = platform.python_version()
    ok = (3, 10) <= sys.version_info[:2] <= (3, 12)
    hint = None if ok else "use Python 3.10, 3.11 or 3.12"
    return Check("python", ok, f"{version}, {platform.system()} {platform.machine()}", hint)


def _package(name: str, hint: str, pin: str | None = None) -> Check:
    try:
        version = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return Check(name, False, "not installed", hint)
    if pin is not None and version != pin:
        return Check(name, False, f"{version}, but {pin} is needed", hint)
    return Check(name, True, version)


def _cache() -> Check:
    from ..targets.mcu.toolchain import cache_folder

    folder = cache_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        hint = "set FEWBITS_CACHE to a folder that can be written"
        return Check("cache", False, f"{folder}: {error.strerror}", hint)
    return Check("cache", True, str(folder))


def _firmware() -> Check:
    """Builds three lines of C for a Cortex-M4 and runs them."""
    name = "firmware"
    try:
        from ..errors import FewbitsError
        from ..targets.mcu.emulator import Emulator
        from ..targets.mcu.target import get_target
        from ..targets.mcu.toolchain import build
    except ImportError as error:
        return Check(name, False, f"cannot import {error.name}", "install the missing package")
    target = get_target("cortex-m4")
    try:
        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder) / "probe.c"
            source.write_text("int probe(int a) { return 3 * a; }\n", encoding="utf-8")
            built = build([source], target, Path(folder) / "probe.elf")
            result = Emulator(built.elf, target).call("probe", 14)
    except (FewbitsError, OSError) as error:
        return Check(name, False, str(error), "reinstall ziglang and unicorn")
    ok = result.value == 42
    detail = f"built with {built.compiler}, {result.instructions} instructions emulated"
    return Check(name, ok, detail, None if ok else "reinstall ziglang and unicorn")


def _tool(name: str, hint: str) -> Check:
    path = shutil.which(name)
    if path is None:
        return Check(name, True, "not found (optional)", hint)
    try:
        text = subprocess.run(
            [path, "--version"], capture_output=True, text=True, timeout=20
        ).stdout
    except (OSError, subprocess.TimeoutExpired) as error:
        return Check(name, False, f"{path} does not run: {error}", hint)
    version = re.search(r"\d+\.\d+(\.\d+)?", text.split("release")[-1])
    return Check(name, True, f"{version.group() if version else '?'}, {path}")
