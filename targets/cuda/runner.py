"""Runs a built library on the GPU: arrays in and out, or tensors that lie there already."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import FewbitsError
from ..base import Run, Runner
from ..cpu.target import this_machine
from ..vm.loading import built_library, check_largest, check_whole, not_loadable
from .devices import Device, device_or_error, runnable, too_old
from .product import graph_of
from .tensors import borrowed, given_back, stream_of

#: No dimension may be larger: blocks of threads are counted in 31 bits.
LARGEST_SIZE = 2**31 - 1


class CudaRunner(Runner):
    """A library loaded onto GPU 0.

    Args:
        folder: an artifact's.
        manifest: its manifest.

    Raises:
        FewbitsError: ``no-such-file``; ``no-gpu``; ``wrong-machine`` where the library has no code
            for the GPU, or for this machine's processor; ``out-of-memory``; ``bad-library``.
    """

    def __init__(self, folder: Path, manifest: Mapping[str, Any]) -> None:
        library = built_library(folder, manifest)
        device = device_or_error()
        if manifest["machine"] != this_machine():
            raise FewbitsError(
                "wrong-machine",
                f"the library is for hosts with {manifest['machine']}, this is {this_machine()}",
                where=str(library),
                hint="compile the model on such a machine",
            )
        names = list(manifest["architectures"])
        architecture = runnable(names, device.capability)
        if architecture is None:
            raise too_old(device, names)
        check_whole(library, manifest)
        _check_memory(library, manifest, device)
        import tvm
        from tvm.runtime.vm import VirtualMachine

        self.architecture = architecture
        self._device = tvm.cuda(0)
        self._inputs = manifest["inputs"]
        self._largest = manifest.get("largest_sizes", {})
        self._lock = threading.Lock()
        self._stream = 0
        try:
            loaded = tvm.runtime.load_module(str(library.absolute()))
            self._machine = VirtualMachine(loaded, self._device)
            self._main = self._machine[graph_of(architecture)]
        except (RuntimeError, ValueError, AttributeError, OSError) as error:
            raise _explained(error) or not_loadable(library, error) from error

    def run(self, inputs: Sequence[np.ndarray]) -> Run:
        """One call: the arrays are copied to the GPU, and the results from it.

        Raises:
            FewbitsError: ``wrong-shape`` for a dimension larger than the model or a GPU has room
                for; ``out-of-memory``; ``gpu-failed``.
        """
        import tvm

        self._check_sizes([array.shape for array in inputs])

        def call() -> Run:
            there = [
                tvm.runtime.tensor(np.ascontiguousarray(array), device=self._device)
                for array in inputs
            ]
            return Run(tuple(field.numpy() for field in self._call(there, 0)))

        return self._safely(call)

    def run_tensors(self, tensors: Sequence[Any]) -> list[Any]:
        """One call on the GPU, without copies: in the order in which the caller's stream works.

        Args:
            tensors: with ``__dlpack__``, on GPU 0, in the types and shapes of the inputs. Those
                whose elements do not lie one after the other from an aligned address are copied.

        Returns:
            Tensors on GPU 0: torch's where the inputs are torch's, else TVM's, which have
            ``__dlpack__``. The stream (torch's current one, or the default one) may still be
            working on them.

        Raises:
            FewbitsError: as `run`; ``wrong-device``.
        """
        self._check_sizes([tuple(tensor.shape) for tensor in tensors])
        stream = stream_of(tensors)

        def call() -> list[Any]:
            there = [borrowed(tensor, self._device) for tensor in tensors]
            return given_back(self._call(there, stream), tensors)

        return self._safely(call)

    def _call(self, tensors: Sequence[Any], stream: int) -> list[Any]:
        import tvm_ffi

        if stream != self._stream:
            # Memory goes back to a pool in the order of one stream, and recordings share theirs.
            self._device.sync(self._stream)
            self._stream = stream
        with tvm_ffi.use_raw_stream(self._device, stream):
            result = self._main(*tensors)
        return [result] if hasattr(result, "numpy") else list(result)

    def _check_sizes(self, shapes: Sequence[Sequence[int]]) -> None:
        for port, shape in zip(self._inputs, shapes, strict=True):
            for size in shape:
                if not 0 < size <= LARGEST_SIZE:
                    raise FewbitsError(
                        "wrong-shape",
                        f"a dimension of {size}",
                        where=f"input {port['name']!r}",
                        hint=f"dimensions are from 1 to {LARGEST_SIZE}",
                    )
        check_largest(self._inputs, shapes, self._largest)

    def _safely(self, call: Callable[[], Any]) -> Any:
        with self._lock:
            try:
                return call()
            except (RuntimeError, ValueError) as error:
                raise _explained(error) or _failed(error) from error


def refuse_threads(threads: int | None) -> None:
    """GPUs choose their threads themselves.

    Raises:
        FewbitsError: ``unknown-option``.
    """
    if threads is not None:
        raise FewbitsError(
            "unknown-option",
            "a library for GPUs takes no number of threads",
            where="threads",
            hint="leave it out",
        )


def _check_memory(library: Path, manifest: Mapping[str, Any], device: Device) -> None:
    bits = manifest["weight_bits"]
    needed = (bits["codes"] + bits["metadata"] + 7) // 8
    if needed > device.memory:
        raise FewbitsError(
            "out-of-memory",
            f"the weights take {needed:,} bytes, but {device.name} has {device.memory:,} free",
            where=str(library),
            hint="free memory on the GPU, or compress the model more",
        )


def _explained(error: Exception) -> FewbitsError | None:
    """What of a failure on the GPU a user can do something about."""
    text = str(error).lower()
    if "out of memory" in text or "cudaerrormemoryallocation" in text:
        return FewbitsError(
            "out-of-memory",
            "the GPU's memory is too small for the model with these sizes",
            hint="give smaller batches, or free memory on the GPU",
        )
    return None


def _failed(error: Exception) -> FewbitsError:
    from .emulator.install import fault

    words = fault() or str(error).strip()[-500:]
    return FewbitsError(
        "gpu-failed",
        f"the GPU stopped with an error: {words}",
        hint="this is a defect of fewbits: please report it with the model",
    )
