"""Relax modules run through the CPU pipeline in this process, without files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import tvm
from fewbits.targets.cpu.pipeline import choose_kernels, lower_to_tir, make_executable
from fewbits.targets.cpu.target import TARGETS, tvm_target
from tvm import ir, relax
from tvm.runtime.vm import VirtualMachine

Run = Callable[..., list[np.ndarray]]


@pytest.fixture
def module_of() -> Callable[..., ir.IRModule]:
    """``module_of([x, ...], call)``: a module whose only layer is that call."""

    def make(parameters: Sequence[relax.Var], call: relax.Expr, name: str = "y") -> ir.IRModule:
        builder: Any = relax.BlockBuilder()
        with builder.function("main", list(parameters)):
            with builder.dataflow():
                var = builder.emit(call, name_hint=name)
                output = builder.emit_output(var)
            builder.emit_func_output(output)
        module = builder.get()
        function = module["main"].with_attrs(
            {"input_names": [p.name for p in parameters], "output_names": [name]}
        )
        return ir.IRModule({"main": function})

    return make


@pytest.fixture
def run() -> Run:
    """``run(module, *arrays)``: the outputs of the compiled module."""

    def execute(module: ir.IRModule, *arrays: np.ndarray) -> list[np.ndarray]:
        target = tvm_target(TARGETS["cpu"])
        lowered = lower_to_tir(choose_kernels(module, target), target)
        machine = VirtualMachine(make_executable(lowered, target), tvm.cpu())
        result = machine["main"](*(tvm.runtime.tensor(a) for a in arrays))
        return [one.numpy() for one in ([result] if hasattr(result, "numpy") else result)]

    return execute
