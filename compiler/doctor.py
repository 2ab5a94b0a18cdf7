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


#: Extensions that decide how fast libraries are, as LLVM calls them.
_FAST = ("avx2", "fma", "avx512f", "avxvnni", "avx512vnni", "avx512bf16", "neon", "dotprod", "i8mm")


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
    """Looks at Python, packages, cache, firmware and libraries; a few seconds at most."""
    return [
        _python(),
        *(_package(name, f"pip install {name}=={pin}", pin) for name, pin in _PINNED.items()),
        *(_package(name, hint) for name, hint in _REQUIRED.items()),
        _cache(),
        _firmware(),
        *_library(),
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


def _library() -> list[Check]:
    """What this CPU can do; and three lines of a model as a library for it, loaded and run."""
    name, hint = "library", "reinstall apache-tvm and ziglang"
    try:
        import numpy as np
        import tvm
        from tvm import relax
        from tvm.runtime.vm import VirtualMachine

        from ..errors import FewbitsError
        from ..targets.cpu.features import host_cpu
        from ..targets.cpu.pipeline import choose_kernels, lower_to_tir, make_executable
        from ..targets.cpu.target import TARGETS, required_features, tvm_target
        from ..targets.cpu.threads import default_threads
        from ..targets.vm.link import link
    except ImportError as error:
        return [Check(name, False, f"cannot import {error.name}", "install the missing package")]
    here = TARGETS["cpu"]
    target = tvm_target(here)
    x = relax.Var("x", relax.TensorType([4], "float32"))
    builder = relax.BlockBuilder()
    with builder.function("main", [x], attrs={"output_names": ["y"], "input_names": ["x"]}):
        with builder.dataflow():
            result = builder.emit_output(relax.op.add(x, x))
        builder.emit_func_output(result)
    try:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "probe.so"
            module = lower_to_tir(choose_kernels(builder.get(), target), target)
            link(make_executable(module, target), here.architecture, path)
            machine = VirtualMachine(tvm.runtime.load_module(str(path)), tvm.cpu())
            ones = tvm.runtime.tensor(np.ones(4, np.float32))
            ok = bool((machine["main"](ones).numpy() == 2).all())
    except (FewbitsError, OSError, RuntimeError, ValueError, AttributeError) as error:
        return [Check(name, False, str(error)[-300:], hint)]
    has = set(required_features(here))
    fast = [f for f in _FAST if f in has]
    cpu = (
        f"{host_cpu()[0]} with {', '.join(fast) or 'no wide vectors'}, {default_threads()} threads"
    )
    detail = "built, linked, loaded and run" if ok else "the result is wrong"
    return [Check("cpu", True, cpu), Check(name, ok, detail, None if ok else hint)]


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
