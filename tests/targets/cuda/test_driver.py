"""TVM's CUDA runtime loads whatever the machine has; each case needs a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from fewbits import FewbitsError
from fewbits.targets.cuda import driver, testing
from fewbits.targets.mcu.toolchain import compiler_command, run_command

_NO_COMPILER = testing.no_compiler()
needs_nvcc = pytest.mark.skipif(_NO_COMPILER is not None, reason=str(_NO_COMPILER))


def _run(program: str, **environment: str) -> str:
    """What a Python program prints; NVIDIA's driver is out of reach, if there is one."""
    inherited = {name: value for name, value in os.environ.items() if name != driver.VARIABLE}
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**inherited, **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.strip()


def _library(folder: Path, name: str, source: str) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "library.c").write_text(source)
    command = [*compiler_command(None), "-shared", "-fPIC", f"-Wl,-soname,{name}"]
    run_command([*command, str(folder / "library.c"), "-o", str(folder / name)])
    return folder / name


KERNEL = """
import numpy as np
from pathlib import Path
from tvm.script import tirx as T
@T.prim_func
def scale(x_ptr: T.handle, y_ptr: T.handle):
    rows = T.int64()
    x = T.match_buffer(x_ptr, (rows, 32), "float32")
    y = T.match_buffer(y_ptr, (rows, 32), "float32")
    T.device_entry()
    row = T.cta_id([T.Cast("int32", rows)])
    thread = T.thread_id([32])
    y[row, thread] = x[row, thread] * T.float32(3)
"""

BUILD = """
import sys
sys.path.insert(0, {folder!r})
from kernel import scale
from fewbits.schedules.cuda.architecture import SM_90A
from fewbits.schedules.cuda.template import Kernel
from fewbits.targets.cuda.compile import compile_kernels
import tvm
assert not tvm.cuda(0).exist
compile_kernels([Kernel("scale", scale, SM_90A, "tirx")])[0].export_library({library!r})
"""

LOAD = """
from fewbits.targets.cuda import driver
driver.prepare()
driver.prepare()
import numpy as np, tvm
module = tvm.runtime.load_module({library!r})
print(tvm.cuda(0).exist, driver.is_emulated())
x = np.arange(64, dtype="float32").reshape(2, 32)
if tvm.cuda(0).exist:
    x = tvm.runtime.tensor(x, tvm.cuda(0))
    y = tvm.runtime.empty((2, 32), "float32", tvm.cuda(0))
    module["scale"](x, y)
    print((y.numpy() == 3 * x.numpy()).all())
"""


def _has_driver() -> bool:
    driver.prepare()
    return driver.replacement() is None


@needs_nvcc
def test_models_are_compiled_and_loaded_without_a_gpu_and_run_on_an_emulated_one(
    tmp_path: Path,
) -> None:
    if _has_driver():
        pytest.skip("the machine has a GPU")
    (tmp_path / "kernel.py").write_text(KERNEL)
    names = {"folder": str(tmp_path), "library": str(tmp_path / "k.so")}
    _run(BUILD.format(**names))
    assert _run(LOAD.format(**names)).split() == ["False", "False"]
    emulated = {driver.VARIABLE: "emulator"}
    assert _run(LOAD.format(**names), **emulated).split() == ["True", "True", "True"]


def test_importing_tvm_before_or_after_makes_no_difference() -> None:
    if _has_driver():
        pytest.skip("the machine has a GPU")
    program = "from fewbits.targets.cuda import emulator; emulator.install('sm_89');"
    shown = "print(tvm.cuda(0).exist, tvm.cuda(0).compute_version)"
    assert _run(f"{program} import tvm; {shown}") == "True 8.9"
    assert _run(f"import tvm; print(tvm.cuda(0).exist); {program} {shown}") == "False\nTrue 8.9"


@pytest.mark.parametrize("name", ["libcudart.so.13", "libcuda.so.1"])
def test_other_cuda_libraries_in_the_process_are_left_alone(tmp_path: Path, name: str) -> None:
    """A torch that was built for CUDA brings libcudart, and that opens the driver by name."""
    functions = ("cudaGetDeviceCount", "cudaMalloc", "cuModuleLoadData", "cudaMemGetInfo")
    source = "\n".join(f"int {function}(void) {{ return 35; }}" for function in functions)
    library = _library(tmp_path, name, source)
    program = f"""
import ctypes
other = ctypes.CDLL({str(library)!r})
from fewbits.targets.cuda import emulator
emulator.install()
import numpy as np, tvm
x = tvm.runtime.tensor(np.arange(5), tvm.cuda(0))
print(x.numpy().sum(), other.cudaGetDeviceCount())
"""
    assert _run(program) == "10 35"


def test_the_emulator_does_not_take_a_drivers_place_once_tvm_has_it(tmp_path: Path) -> None:
    names = (
        "cuDeviceGetName cuFuncSetAttribute cuGetErrorName cuGetErrorString cuLaunchKernelEx "
        "cuModuleGetFunction cuModuleLoadData cuModuleUnload cuTensorMapEncodeTiled cuInit"
    )
    source = "\n".join(f"int {name}(void) {{ return 100; }}" for name in names.split())
    _library(tmp_path, "libcuda.so.1", source)
    versions = tmp_path / "versions"
    versions.write_text("libcudart.so.13 { global: *; };")
    (tmp_path / "runtime.c").write_text(
        "\n".join(f"int {name}(void) {{ return 100; }}" for name in RUNTIME.split())
    )
    command = [*compiler_command(None), "-shared", "-fPIC", "-Wl,-soname,libcudart.so.13"]
    command += [f"-Wl,--version-script={versions}", str(tmp_path / "runtime.c")]
    run_command([*command, "-o", str(tmp_path / "libcudart.so.13")])
    install = """
try:
    from fewbits.targets.cuda import emulator
    emulator.install()
    import tvm
    print("emulated", tvm.cuda(0).exist)
except Exception as error:
    print(error.code)
"""
    path = {"LD_LIBRARY_PATH": str(tmp_path)}
    assert _run(install, **path) == "emulated True"
    # Nothing asks for the emulator, so the driver is what TVM gets, and that stays so.
    prepare = """
import tvm
from fewbits.targets.cuda import driver
driver.prepare()
print(driver.replacement(), driver.is_emulated())
"""
    assert _run(prepare + install, **path).split() == ["None", "False", "no-emulator"]


RUNTIME = """
cudaDeviceGetAttribute cudaEventCreate cudaEventDestroy cudaEventElapsedTime cudaEventRecord
cudaEventSynchronize cudaFree cudaFreeHost cudaGetDevice cudaGetDeviceCount
cudaGetDeviceProperties cudaGetErrorName cudaGetErrorString cudaGetLastError cudaGraphDestroy
cudaGraphExecDestroy cudaGraphInstantiate cudaGraphLaunch cudaMalloc cudaMallocHost cudaMemGetInfo
cudaMemcpyAsync cudaMemcpyPeerAsync cudaPeekAtLastError cudaSetDevice cudaStreamBeginCapture
cudaStreamCreate cudaStreamCreateWithFlags cudaStreamDestroy cudaStreamEndCapture
cudaStreamSynchronize cudaStreamWaitEvent
"""


@pytest.mark.parametrize(
    ("value", "architecture"),
    [("", None), ("emulator", "sm_90a"), ("emulator:sm_80", "sm_80")],
)
def test_the_variable_asks_for_an_architecture(
    monkeypatch: pytest.MonkeyPatch, value: str, architecture: str | None
) -> None:
    monkeypatch.setenv(driver.VARIABLE, value)
    assert driver.requested_emulator() == architecture


def test_the_variable_is_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(driver.VARIABLE, "emulater")
    with pytest.raises(FewbitsError) as caught:
        driver.prepare()
    assert (caught.value.code, caught.value.where) == ("bad-architecture", driver.VARIABLE)


@pytest.mark.parametrize("architecture", ["sm_75", "sm_100a", "90a", "sm_9000"])
def test_architectures_without_an_interpreter(architecture: str) -> None:
    from fewbits.targets.cuda import emulator

    with pytest.raises(FewbitsError) as caught:
        emulator.install(architecture)
    assert caught.value.code == "bad-architecture"


def test_every_function_that_tvm_asks_for_is_there() -> None:
    from elftools.elf.elffile import ELFFile
    from fewbits.targets.cuda.emulator import build

    driver.prepare()
    from tvm.base import _LOADED_LIBS

    folder = Path(_LOADED_LIBS["tvm_runtime"]._name).resolve().parent
    with (folder / "libtvm_runtime_cuda.so").open("rb") as file:
        table = ELFFile(file).get_section_by_name(".dynsym")
        wanted = {
            symbol.name
            for symbol in table.iter_symbols()
            if symbol["st_shndx"] == "SHN_UNDEF" and symbol.name.startswith("cu")
        }
    with build.driver_libraries()[0].open("rb") as file:
        table = ELFFile(file).get_section_by_name(".dynsym")
        offered = {s.name for s in table.iter_symbols() if s["st_shndx"] != "SHN_UNDEF"}
    assert len(wanted) > 30
    assert not wanted - offered
