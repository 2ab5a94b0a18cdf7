"""Several small graphs in one library for GPUs, run on the emulated one: starting nvcc and a linker
takes longer than most of them.
"""

from __future__ import annotations

import contextlib
import dataclasses
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from fewbits.schedules.cuda.architecture import ARCHITECTURES
from fewbits.schedules.cuda.template import Kernel
from fewbits.targets.cpu.target import this_machine
from fewbits.targets.cuda import emulator
from fewbits.targets.cuda.pipeline import make_executable
from fewbits.targets.vm.link import link
from fewbits.targets.vm.names import Plain

#: Arrays in, arrays out.
Function = Callable[[Sequence[np.ndarray]], list[np.ndarray]]


@dataclasses.dataclass(frozen=True, eq=False)
class Part:
    """A graph that awaits a compiler.

    Attributes:
        graph: its loops.
        kernels: of products, that it calls.
    """

    graph: Plain
    kernels: tuple[Kernel, ...]


@contextlib.contextmanager
def functions_of(parts: Sequence[Part], architecture: str) -> Iterator[list[Function]]:
    """The graphs as functions, as long as the context lasts.

    A function raises ``gpu-fault`` where the emulated GPU stops a kernel.

    Args:
        parts: all for the same architecture.
        architecture: e.g. ``"sm_80"``.

    Raises:
        FewbitsError: ``compiler-failed`` where one of them does not compile.
    """
    import tvm
    from tvm.runtime.vm import VirtualMachine

    emulator.install(architecture)
    # Equal products of several graphs are one kernel: the name says what a kernel computes.
    kernels = {kernel.name: kernel for part in parts for kernel in part.kernels}
    graphs = {f"main_{place}": part.graph for place, part in enumerate(parts)}
    executable = make_executable(graphs, list(kernels.values()), [ARCHITECTURES[architecture]])
    device = tvm.cuda(0)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "library.so"
        link(executable, this_machine(), path)
        machine = VirtualMachine(tvm.runtime.load_module(str(path)), device)
        yield [_function(machine[name], device) for name in graphs]


def _function(graph: Any, device: Any) -> Function:
    import tvm

    def call(arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        with emulator.reporting():
            there = [tvm.runtime.tensor(np.ascontiguousarray(a), device) for a in arrays]
            result = graph(*there)
            fields = [result] if hasattr(result, "numpy") else list(result)
            return [field.numpy() for field in fields]

    return call
