"""The GPU that is measured: this machine's, or one behind TVM's RPC.

Before each run a copy larger than the second cache throws out what earlier runs left there: weights
of a model come from memory, as between two calls of one layer all others run. The copy also keeps
the GPU busy while the host launches the kernel, so that its launch time is not measured.
"""

from __future__ import annotations

import ctypes
import dataclasses
import importlib
import os
import sys
from pathlib import Path
from typing import Any, Protocol

#: Where the driver does not tell the second cache's size.
_CACHE_BYTES = 128 << 20
_RUNTIME = "libcudart.so.13"


@dataclasses.dataclass(frozen=True)
class Card:
    """A kind of GPU.

    Attributes:
        name: as the driver calls it.
        capability: compute capability.
    """

    name: str
    capability: tuple[int, int]


class Gpu(Protocol):
    """Runs and times functions.

    Attributes:
        card: which GPU it is.
        device: TVM's.
    """

    card: Card
    device: Any

    def load(self, library: Path, function: str) -> Any:
        """A function of a library."""
        ...

    def seconds(self, function: Any, arguments: list[Any]) -> float:
        """One run, the second cache cleared before."""
        ...


class _Events:
    """CUDA's events, which mark moments in the GPU's own time."""

    def __init__(self, cuda: ctypes.CDLL) -> None:
        self._cuda = cuda
        self._ends = [ctypes.c_void_p(), ctypes.c_void_p()]
        for event in self._ends:
            self._check(cuda.cudaEventCreate(ctypes.byref(event)))

    def mark(self, end: int) -> None:
        """The moment when all that was launched so far is done: the begin (0) or the end (1)."""
        self._check(self._cuda.cudaEventRecord(self._ends[end], None))

    def seconds(self) -> float:
        """Between the two, when both have passed."""
        passed = ctypes.c_float()
        self._check(self._cuda.cudaEventSynchronize(self._ends[1]))
        self._check(self._cuda.cudaEventElapsedTime(ctypes.byref(passed), *self._ends))
        return passed.value * 1e-3

    @staticmethod
    def _check(code: int) -> None:
        if code:
            raise RuntimeError(f"CUDA's error {code}")


class LocalGpu:
    """GPU 0 of this machine.

    Args:
        cuda: functions of CUDA's run-time library.
        flush: bytes copied before each run; None for twice the second cache.
    """

    def __init__(self, cuda: ctypes.CDLL, flush: int | None = None) -> None:
        import tvm

        self.device = tvm.cuda(0)
        if not self.device.exist:
            raise RuntimeError("there is no GPU here")
        self.card = _card(self.device)
        self._copy = _buffers(self.device, flush)
        self._events = _Events(cuda)
        self._modules: dict[Path, Any] = {}

    def load(self, library: Path, function: str) -> Any:
        """A function of a library; each is loaded once."""
        import tvm

        if library not in self._modules:
            self._modules[library] = tvm.runtime.load_module(str(library))
        return self._modules[library][function]

    def seconds(self, function: Any, arguments: list[Any]) -> float:
        """One run, by events."""
        if self._copy:
            self._copy[0].copyto(self._copy[1])
        self._events.mark(0)
        function(*arguments)
        self._events.mark(1)
        return self._events.seconds()


class RemoteGpu:
    """GPU 0 of a machine that a tracker knows.

    The server's clock is TVM's, which waits for the GPU before it starts: short kernels look longer
    by the time of their launch. All candidates do.

    Args:
        tracker: host, port and key.
        flush: as for `LocalGpu`.
        kind: of the device.
    """

    def __init__(
        self, tracker: tuple[str, int, str], flush: int | None = None, kind: str = "cuda"
    ) -> None:
        from tvm import rpc

        host, port, key = tracker
        self._session = rpc.connect_tracker(host, port).request(key)
        self.device = self._session.device(kind, 0)
        if not self.device.exist:
            raise RuntimeError(f"the machine has no {kind}")
        self.card = _card(self.device) if kind == "cuda" else Card(kind, (0, 0))
        self._flush = _flush_bytes(self.device, flush)
        self._modules: dict[Path, Any] = {}
        self._timers: dict[Any, Any] = {}

    def load(self, library: Path, function: str) -> Any:
        """A function of a library, which is sent once."""
        if library not in self._modules:
            self._session.upload(str(library))
            self._modules[library] = self._session.load_module(library.name)
        found = self._modules[library]
        loaded = found[function]
        self._timers[loaded] = found.time_evaluator(
            function, self.device, number=1, repeat=1, cache_flush_bytes=self._flush
        )
        return loaded

    def seconds(self, function: Any, arguments: list[Any]) -> float:
        """One run, by the server's clock."""
        return float(self._timers[function](*arguments).results[0])


def cuda_functions(prepare: str | None) -> ctypes.CDLL:
    """CUDA's run-time library, loaded before TVM, which needs it.

    Args:
        prepare: ``module:function`` that gives it instead, for GPUs that are not NVIDIA's.

    Raises:
        RuntimeError: there is none.
    """
    if prepare is not None:
        module, _, function = prepare.partition(":")
        found = getattr(importlib.import_module(module), function)()
        if found is not None:
            return found
    places = [
        str(file)
        for folder in sys.path
        for file in sorted(Path(folder).glob(f"nvidia/*/lib/{_RUNTIME}"))
    ]
    for name in [*places, _RUNTIME]:
        try:
            return ctypes.CDLL(name, mode=ctypes.RTLD_GLOBAL | os.RTLD_NOW)
        except OSError:
            continue
    raise RuntimeError(f"{_RUNTIME} is not here: pip install nvidia-cuda-runtime==13.0.*")


def _card(device: Any) -> Card:
    major, minor = (int(number) for number in str(device.compute_version).split("."))
    return Card(str(device.device_name), (major, minor))


def _flush_bytes(device: Any, flush: int | None) -> int:
    if flush is not None:
        return flush
    return 2 * int(getattr(device, "l2_cache_size_bytes", None) or _CACHE_BYTES)


def _buffers(device: Any, flush: int | None) -> list[Any]:
    import tvm

    size = _flush_bytes(device, flush)
    if not size:
        return []
    return [tvm.runtime.empty((size,), "uint8", device) for _ in range(2)]
