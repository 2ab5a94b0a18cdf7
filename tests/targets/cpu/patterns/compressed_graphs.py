"""Small compressed modules, and what they compute with kernels and without."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
import tvm
from fewbits.ops.evaluate import Evaluator
from fewbits.passes.rewrite import assemble
from fewbits.targets.cpu.patterns import select_kernels
from fewbits.targets.cpu.pipeline import choose_kernels, lower_to_tir, make_executable
from tvm import relax
from tvm.target import codegen

op: Any = relax.op
tensor_type: Any = relax.TensorType


class Graph:
    """Bindings, one by one."""

    def __init__(self, **parameters: tuple[int | str, ...]) -> None:
        symbols = {
            size: tvm.tirx.Var(size, "int64")
            for shape in parameters.values() for size in shape if isinstance(size, str)
        }  # fmt: skip
        self.parameters = [
            relax.Var(name, tensor_type([symbols.get(s, s) for s in shape], "float32"))
            for name, shape in parameters.items()
        ]
        self._bindings: list[tuple[relax.Var, Any]] = []
        self._builder = relax.BlockBuilder()

    def __call__(self, value: Any, name: str | None = None) -> relax.Var:
        value = self._builder.normalize(value)
        var = relax.DataflowVar(name or f"v{len(self._bindings)}", value.ty)
        self._bindings.append((var, value))
        return var

    def linear(self, x: Any, weight: Any, name: str) -> relax.Var:
        """``matmul(x, permute_dims(weight))`` of an expression."""
        return self(op.matmul(x, self(op.permute_dims(self(weight)))), name)

    def module(self, *outputs: relax.Var) -> Any:
        result = outputs[0] if len(outputs) == 1 else relax.Tuple(list(outputs))
        names = {
            "input_names": [p.name for p in self.parameters],
            "output_names": [o.name for o in outputs],
        }
        return assemble(self.parameters, self._bindings, result, names)


def host() -> Any:
    return tvm.target.Target({"kind": "llvm", "mcpu": str(codegen.llvm_get_system_cpu())})


def target(mcpu: str, *mattr: str) -> Any:
    """A target of another processor; skips where this one cannot run its code."""
    made = tvm.target.Target({"kind": "llvm", "mcpu": mcpu, "mattr": list(mattr)})
    here = tvm.get_global_func("tvm.codegen.llvm.GetHostCPUFeatures")()
    present = {str(name) for name, has in here.items() if has}
    needed = {"avx2", "avx512bw", "avx512vnni"} & set(map(str, codegen.llvm_get_cpu_features(made)))
    if not needed <= present:
        pytest.skip(f"this processor lacks {needed - present}")
    return made


def built(module: Any, made: Any) -> Any:
    """The module as a function of arrays."""
    lowered = lower_to_tir(choose_kernels(module, made), made)
    machine = relax.VirtualMachine(make_executable(lowered, made), tvm.cpu())

    def run(inputs: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        result = machine["main"](*[tvm.runtime.tensor(a, tvm.cpu()) for a in inputs.values()])
        return [r.numpy() for r in (result if hasattr(result, "__len__") else [result])]

    return run


def check(
    module: Any, *samples: Mapping[str, np.ndarray], made: Any = None, within: float = 2e-6
) -> dict[str, str]:
    """The kernels compute what the operators mean; gives which kernel each layer got."""
    made = made or host()
    run, evaluator = built(module, made), Evaluator(module)
    for inputs in samples:
        wanted = evaluator({k: torch.from_numpy(v) for k, v in inputs.items()})
        for (name, reference), got in zip(wanted.items(), run(inputs), strict=True):
            reference = reference.numpy()
            assert got.shape == reference.shape, name
            assert np.abs(got - reference).max() <= within * np.abs(reference).max(), name
    notes = select_kernels(module, made)["main"].attrs["kernels"]
    return {str(layer): str(kernel) for layer, kernel in notes.items()}
