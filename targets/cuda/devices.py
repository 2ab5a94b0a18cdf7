"""Which GPU there is, and which part of a library it can run."""

from __future__ import annotations

import ctypes
import dataclasses
from collections.abc import Sequence

from ...errors import FewbitsError
from ...schedules.cuda.architecture import ARCHITECTURES, Architecture
from . import driver

#: CUDA's run-time library that TVM brings is of this version; older drivers do not run it.
_NEEDED_DRIVER = 13000

_SUCCESS = 0


@dataclasses.dataclass(frozen=True)
class Device:
    """A GPU.

    Attributes:
        name: as the driver calls it.
        capability: compute capability.
        memory: bytes that are free.
    """

    name: str
    capability: tuple[int, int]
    memory: int


def found_device() -> Device | None:
    """GPU 0, or the emulated one where it is asked for; None where there is none.

    Raises:
        FewbitsError: ``wrong-machine`` where there is one, and its driver is too old.
    """
    driver.prepare()
    import tvm

    device = tvm.cuda(0)
    if not device.exist:
        _check_driver()
        return None
    major, minor = str(device.compute_version).split(".")
    free = device.available_global_memory or device.total_global_memory or 0
    return Device(str(device.device_name), (int(major), int(minor)), int(free))


def device_or_error() -> Device:
    """GPU 0, or the emulated one.

    Raises:
        FewbitsError: ``no-gpu``, ``wrong-machine``.
    """
    device = found_device()
    if device is None:
        raise FewbitsError(
            "no-gpu",
            "there is no GPU here",
            hint=f"set {driver.VARIABLE}=emulator to run it, slowly, on an emulated one",
        )
    return device


def found_architecture() -> Architecture | None:
    """The newest architecture whose machine code the GPU here runs; None where there is no GPU.

    Raises:
        FewbitsError: ``wrong-machine`` for a GPU older than all of them, or one that is newer.
    """
    device = found_device()
    if device is None:
        return None
    name = runnable(list(reversed(ARCHITECTURES)), device.capability)
    if name is None:
        raise too_old(device, list(ARCHITECTURES))
    return ARCHITECTURES[name]


def runnable(names: Sequence[str], capability: tuple[int, int]) -> str | None:
    """The architecture whose code a device should run, or None.

    Machine code of its generation comes first; else the driver translates PTX of an older one,
    which it cannot for names that end in ``a``.

    Args:
        names: architectures that a library has code for.
        capability: of the device.
    """
    known = [a for a in reversed(ARCHITECTURES.values()) if a.name in names]
    for architecture in known:
        if architecture.runs_on(capability):
            return architecture.name
    for architecture in known:
        if not architecture.name.endswith("a") and capability >= architecture.capability:
            return architecture.name
    return None


def too_old(device: Device, names: Sequence[str]) -> FewbitsError:
    """``wrong-machine``: a library without code for a device."""
    major, minor = device.capability
    return FewbitsError(
        "wrong-machine",
        f"the GPU here, {device.name}, has compute capability {major}.{minor}, "
        f"but the library has code for {', '.join(names)}",
        hint="compile for another target, see `fewbits targets`",
    )


def _check_driver() -> None:
    """No device: is that the driver's age?"""
    try:
        library = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return
    version, count = ctypes.c_int(), ctypes.c_int()
    if library.cuInit(0) != _SUCCESS or library.cuDeviceGetCount(ctypes.byref(count)) != _SUCCESS:
        return
    if not count.value or library.cuDriverGetVersion(ctypes.byref(version)) != _SUCCESS:
        return
    if version.value < _NEEDED_DRIVER:
        raise FewbitsError(
            "wrong-machine",
            f"the GPU's driver is for CUDA {version.value // 1000}.{version.value % 1000 // 10}, "
            f"but CUDA {_NEEDED_DRIVER // 1000} is needed",
            hint="install a driver of version 580 or later",
        )
