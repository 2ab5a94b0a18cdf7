"""Runs a built model on codes: in the emulator, or on this machine for the target ``c``."""

from __future__ import annotations

import ctypes
import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ...errors import FewbitsError
from ..base import Run, Runner
from .emulator import Emulator
from .target import McuTarget


@dataclasses.dataclass(frozen=True)
class Signature:
    """What a runner has to know of a model.

    Attributes:
        function: name of the C function.
        inputs, outputs: shape and dtype of each pointer argument, in order.
        arena_bytes: size of the arena.
        layers: number of layers.
    """

    function: str
    inputs: tuple[tuple[tuple[int, ...], str], ...]
    outputs: tuple[tuple[tuple[int, ...], str], ...]
    arena_bytes: int
    layers: int


def make_runner(
    binary: Path, target: McuTarget, signature: Signature, *, strict: bool = False
) -> Runner:
    """A runner for a binary that `build_firmware` made.

    Args:
        binary: ``bin/model.elf`` or, on the host, ``bin/model.so``.
        target: what it was built for.
        signature: its interface.
        strict: in the emulator, refuse accesses outside the model's memory and unaligned ones.

    Raises:
        FewbitsError: ``bad-elf``, ``no-such-file``.
    """
    if not binary.is_file():
        raise FewbitsError(
            "no-such-file",
            f"there is no built model at {binary.name!r}",
            where=str(binary),
            hint="compile again without --to, so that the firmware is built",
        )
    if target.family == "host":
        return _HostRunner(binary, signature)
    return _EmulatorRunner(binary, target, signature, strict)


def _check(inputs: Sequence[np.ndarray], signature: Signature) -> list[np.ndarray]:
    checked = []
    for array, (shape, dtype) in zip(inputs, signature.inputs, strict=True):
        if array.size != math.prod(shape) or array.dtype != dtype:
            raise FewbitsError(
                "wrong-shape", f"{array.dtype} {array.shape} where {dtype} {shape} is expected"
            )
        checked.append(np.ascontiguousarray(array))
    return checked


def _status(value: int) -> None:
    if value != 0:
        raise FewbitsError("run-failed", f"the model's run function returned {value}")


class _EmulatorRunner(Runner):
    def __init__(self, elf: Path, target: McuTarget, signature: Signature, strict: bool) -> None:
        self.signature = signature
        buffers = [*signature.inputs, *signature.outputs]
        sizes = [_bytes(*buffer) for buffer in buffers]
        workspace = sum(sizes) + signature.arena_bytes + (1 << 16)
        self.emulator = Emulator(
            elf, target, workspace=workspace, check_alignment=strict, guard=strict
        )
        count = len(signature.inputs)
        self.inputs = [self.emulator.allocate(s, writable=False) for s in sizes[:count]]
        self.outputs = [self.emulator.allocate(s) for s in sizes[count:]]
        self.arena = self.emulator.allocate(max(signature.arena_bytes, 8))
        self.names = [f"fb_layer_{index}" for index in range(signature.layers)]

    def run(self, inputs: Sequence[np.ndarray]) -> Run:
        """One inference on codes."""
        for address, array in zip(self.inputs, _check(inputs, self.signature), strict=True):
            self.emulator.write(address, array)
        result = self.emulator.call(
            self.signature.function, *self.inputs, *self.outputs, self.arena
        )
        _status(result.value)
        outputs = tuple(
            np.frombuffer(self.emulator.read(address, _bytes(shape, dtype)), dtype).reshape(shape)
            for address, (shape, dtype) in zip(self.outputs, self.signature.outputs, strict=True)
        )
        per_layer = tuple(result.per_region.get(name, 0) for name in self.names)
        return Run(outputs, result.instructions, per_layer, result.stack_bytes)


class _HostRunner(Runner):
    def __init__(self, library: Path, signature: Signature) -> None:
        self.signature = signature
        self.function = getattr(ctypes.CDLL(str(library.absolute())), signature.function)
        self.function.restype = ctypes.c_int
        # 64-bit elements give the arena the alignment that the interface asks for.
        self.arena = np.zeros(max(signature.arena_bytes // 8 + 1, 1), np.int64)

    def run(self, inputs: Sequence[np.ndarray]) -> Run:
        """One inference on codes."""
        # Copies, because a sample in the middle of an array need not be aligned as C wants it.
        arrays = [array.copy() for array in _check(inputs, self.signature)]
        outputs = [np.empty(shape, dtype) for shape, dtype in self.signature.outputs]
        pointers = [a.ctypes.data_as(ctypes.c_void_p) for a in [*arrays, *outputs, self.arena]]
        _status(self.function(*pointers))
        return Run(tuple(outputs), None, (0,) * self.signature.layers, None)


def _bytes(shape: tuple[int, ...], dtype: str) -> int:
    return math.prod(shape) * np.dtype(dtype).itemsize
