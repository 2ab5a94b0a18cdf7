"""Modules with general schedules, run by replaying their kernels on the host."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import tvm
from fewbits.schedules.cuda.architecture import SM_80
from fewbits.schedules.cuda.general import fuse_views, schedule_module
from fewbits.schedules.cuda.replay import replay_module
from fewbits.targets.vm.legalize import LEGALIZATIONS
from tvm import ir, relax, tirx

Write = Callable[..., relax.Expr]


def loops(module: ir.IRModule) -> ir.IRModule:
    """Every operator as loops, fused as on the road to a GPU."""
    steps = [
        relax.transform.DecomposeOpsForInference(),
        relax.transform.LegalizeOps(LEGALIZATIONS),
        relax.transform.AnnotateTIROpPattern(),
        fuse_views,
        relax.transform.FuseOps(),
        relax.transform.FuseTIR(),
        relax.transform.DeadCodeElimination(),
    ]
    for step in steps:
        module = step(module)
    return module


class Scheduled:
    """A module with threads: run it on the host, look at its kernels."""

    def __init__(
        self, write: Write, shapes: Sequence[Sequence[int | str]], dtypes: Sequence[str] | None
    ) -> None:
        builder = relax.BlockBuilder()
        sizes: dict[str, tirx.Var] = {}

        def size(value: int | str) -> Any:
            if isinstance(value, int):
                return value
            return sizes.setdefault(value, tirx.Var(value, "int64"))

        types = dtypes or ["float32"] * len(shapes)
        parameters = [
            relax.Var(f"x{n}", relax.TensorType([size(v) for v in shape], dtype))
            for n, (shape, dtype) in enumerate(zip(shapes, types, strict=True))
        ]
        with builder.function("main", parameters):
            with builder.dataflow():
                result = builder.emit_output(write(builder.emit, *parameters))
            builder.emit_func_output(result)
        self.module = schedule_module(loops(builder.get()), SM_80)

    @property
    def kernels(self) -> dict[str, tirx.PrimFunc]:
        """The PrimFuncs by name."""
        return {
            variable.name_hint: function
            for variable, function in self.module.functions.items()
            if isinstance(function, tirx.PrimFunc)
        }

    @property
    def launches(self) -> int:
        """How many grids all PrimFuncs launch."""
        return sum(f.script().count('thread="blockIdx.x"') for f in self.kernels.values())

    def __call__(self, *arrays: np.ndarray) -> list[np.ndarray]:
        """The results; threads run upwards and downwards, and must agree to the bit."""
        results = []
        for backwards in (False, True):
            host = replay_module(self.module, backwards)
            executable = relax.build(
                host, target=tvm.target.Target({"kind": "llvm", "opt-level": 0})
            )
            machine = relax.VirtualMachine(executable, tvm.cpu())
            got = machine["main"](*[tvm.runtime.tensor(array) for array in arrays])
            tensors = [got] if isinstance(got, tvm.runtime.Tensor) else list(got)
            results.append([tensor.numpy() for tensor in tensors])
        for one, other in zip(*results, strict=True):
            np.testing.assert_array_equal(one, other)
        return results[0]


@pytest.fixture(name="loops")
def _loops() -> Callable[[ir.IRModule], ir.IRModule]:
    return loops


@pytest.fixture
def scheduled() -> Callable[..., Scheduled]:
    def build(
        write: Write, *shapes: Sequence[int | str], dtypes: Sequence[str] | None = None
    ) -> Scheduled:
        return Scheduled(write, shapes, dtypes)

    return build
