"""Runs single kernels, for tests and whoever writes kernels: on the machine's GPU, or emulated."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from ...errors import FewbitsError
from ...schedules.cuda.architecture import ARCHITECTURES, Architecture
from ...schedules.cuda.template import Kernel
from . import driver, emulator
from .compile import compile_kernels
from .toolchain import check_host_compiler, find_nvcc


@dataclasses.dataclass(frozen=True)
class Gpu:
    """What kernels run on.

    Attributes:
        device: TVM's.
        architecture: what to compile for.
        emulated: whether it is no real one.
    """

    device: Any
    architecture: Architecture
    emulated: bool


def open_gpu(architecture: str = "sm_90a", checks: emulator.Checks | None = None) -> Gpu:
    """The machine's GPU where there is one, else an emulated one of this architecture.

    Args:
        architecture: of `ARCHITECTURES`.
        checks: what an emulated one looks for; None for the usual. A real one looks for nothing.

    Raises:
        FewbitsError: ``wrong-gpu``: the machine's GPU does not run the architecture's code;
            ``bad-architecture``, ``no-emulator``, ``no-cuda-runtime``, ``compiler-missing``,
            ``compiler-failed``.
    """
    import tvm

    wanted = ARCHITECTURES[architecture]
    driver.prepare()
    device = tvm.cuda(0)
    if driver.replacement() is not None:
        emulator.reset()
        emulator.install(architecture, checks=checks)
        return Gpu(device, wanted, emulated=True)
    major, minor = (int(number) for number in str(device.compute_version).split("."))
    if not wanted.runs_on((major, minor)):
        raise FewbitsError(
            "wrong-gpu",
            f"the GPU has compute capability {major}.{minor}, which does not run {architecture}",
            hint=f"{driver.VARIABLE}=emulator:{architecture} runs it without a GPU",
        )
    return Gpu(device, wanted, emulated=False)


def no_compiler() -> str | None:
    """Why kernels cannot be compiled here, or None where they can."""
    try:
        find_nvcc()
        check_host_compiler()
    except FewbitsError as error:
        return str(error)
    return None


def unavailable(architecture: str = "sm_90a") -> str | None:
    """Why kernels of this architecture cannot be compiled and run here, or None where they can."""
    try:
        find_nvcc()
        check_host_compiler()
        open_gpu(architecture)
    except FewbitsError as error:
        if error.code in ("compiler-missing", "wrong-gpu", "no-cuda-runtime"):
            return str(error)
        raise
    return None


def run_kernel(
    kernel: Kernel,
    *arguments: np.ndarray,
    outputs: int = 1,
    checks: emulator.Checks | None = None,
) -> list[np.ndarray]:
    """Compile a kernel, and launch it once on `tvm.cuda(0)`.

    Args:
        kernel: where there is no GPU, the emulated one becomes its architecture.
        arguments: its parameters in order, the results among them: what they hold is uploaded, so
            that elements that the kernel does not write keep it. bfloat16 and FP8 as ml_dtypes
            has them.
        outputs: how many of the last parameters are results.
        checks: what an emulated GPU looks for, None for the usual.

    Returns:
        The results, in order.

    Raises:
        FewbitsError: ``gpu-fault``: the emulated GPU stopped the kernel; those of `open_gpu`.
    """
    gpu = open_gpu(kernel.architecture.name, checks)
    (module,) = compile_kernels([kernel])
    return run_function(module[kernel.name], gpu, *arguments, outputs=outputs)


def run_function(
    function: Any, gpu: Gpu, *arguments: np.ndarray, outputs: int = 1
) -> list[np.ndarray]:
    """Call a compiled function once with arrays on the GPU; the last `outputs` are its results.

    Raises:
        FewbitsError: ``gpu-fault``.
    """
    import tvm

    with emulator.reporting():
        tensors = [tvm.runtime.tensor(np.ascontiguousarray(a), gpu.device) for a in arguments]
        function(*tensors)
        gpu.device.sync()
        return [tensor.numpy() for tensor in tensors[len(tensors) - outputs :]]
