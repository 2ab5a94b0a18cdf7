"""Stand-ins for builder and runner, and a product to tune."""

from __future__ import annotations

import types
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import tvm
from fewbits.schedules.cpu import schedule_module
from fewbits.schedules.tuning.choices import Choices, Collected, Site, Sizes
from tvm import relax

TARGET = tvm.target.Target({"kind": "llvm", "mcpu": "x86-64-v3"})


class FakeBuilder:
    """Gives artifacts numbered as they come; those in `broken` are not built."""

    def __init__(self, broken: frozenset[int] = frozenset()) -> None:
        self.broken, self.built = broken, 0

    def build(self, inputs: list[Any]) -> list[Any]:
        results = []
        for _ in inputs:
            fails = self.built in self.broken
            path, problem = (None, "x\nSyntax error") if fails else (f"kernel{self.built}", None)
            results.append(types.SimpleNamespace(artifact_path=path, error_msg=problem))
            self.built += 1
        return results


class FakeRunner:
    """Seconds, or a complaint, by the artifact's number and the count of its runs so far."""

    def __init__(self, answer: Callable[[int, int], float | str]) -> None:
        self.answer = answer
        self.runs: dict[int, int] = {}

    def run(self, inputs: list[Any]) -> list[Any]:
        return [self._future(int(str(one.artifact_path).removeprefix("kernel"))) for one in inputs]

    def _future(self, kernel: int) -> Any:
        found = self.answer(kernel, self.runs.get(kernel, 0))
        self.runs[kernel] = self.runs.get(kernel, 0) + 1
        result = types.SimpleNamespace(
            run_secs=None if isinstance(found, str) else [found * 3, found, found * 2],
            error_msg=found if isinstance(found, str) else None,
        )
        return types.SimpleNamespace(result=lambda: result)


def product_module(
    rows: Any, summed: int, columns: int, *, name: str = "y", after: bool = False, seed: int = 0
) -> tvm.IRModule:
    """``x [rows, summed] @ w`` and a ReLU, fused and legalized."""
    builder: Any = relax.BlockBuilder()
    x = relax.Var(f"x {name}", relax.TensorType((rows, summed), "float32"))  # type: ignore[arg-type]
    weight = np.random.default_rng(seed).normal(size=(summed, columns)).astype("float32")
    with builder.function("main", [x]):
        with builder.dataflow():
            result = builder.emit(relax.op.matmul(x, relax.const(weight)), f"{name} product")
            if after:
                result = builder.emit(relax.op.nn.relu(result), f"{name} relu")
            builder.emit_output(result)
        builder.emit_func_output(result)
    steps = [
        relax.transform.LegalizeOps(),
        relax.transform.AnnotateTIROpPattern(),
        relax.transform.FuseOps(),
        relax.transform.FuseTIR(),
    ]
    module = builder.get()
    with TARGET:
        for step in steps:
            module = step(module)
    return module


def sites_of(module: tvm.IRModule, choices: Choices | None = None) -> Mapping[str, list[Site]]:
    """The sites of a module's products."""
    collected = Collected()
    schedule_module(module, TARGET, collected if choices is None else choices)
    return collected.sites


def only_site(module: tvm.IRModule) -> Site:
    """The one site of a module."""
    ((site,),) = sites_of(module).values()
    return site


class Fixed(Choices):
    """The same sizes everywhere."""

    def __init__(self, sizes: Sizes) -> None:
        self.sizes = sizes

    def choose(self, site: Site) -> Sizes:
        return self.sizes
