"""Building one-operator modules with the CPU schedules, for every test of this folder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import tvm
from fewbits.schedules.cpu import schedule_module
from numpy.typing import NDArray
from tvm import relax, tirx

Write = Callable[..., relax.Expr]
Run = Callable[..., NDArray[Any]]

HOST = tvm.get_global_func("target.llvm_get_system_cpu")()


def supports(feature: str) -> bool:
    target = tvm.target.Target({"kind": "llvm", "mcpu": HOST})
    return bool(tvm.get_global_func("target.llvm_cpu_has_feature")(feature, target))


class Built:
    """A scheduled module: run it, look at it, count what was left to TVM."""

    def __init__(
        self, write: Write, shapes: Sequence[Sequence[int | str]], dtypes: Sequence[str], mcpu: str
    ) -> None:
        builder = relax.BlockBuilder()
        sizes: dict[str, tirx.Var] = {}

        def size(value: int | str) -> Any:
            return (
                sizes.setdefault(value, tirx.Var(value, "int64"))
                if isinstance(value, str)
                else value
            )

        parameters = [
            relax.Var(f"x{n}", relax.TensorType([size(v) for v in shape], dtype))
            for n, (shape, dtype) in enumerate(zip(shapes, dtypes, strict=True))
        ]
        with builder.function("main", parameters):
            with builder.dataflow():
                result = builder.emit_output(write(builder.emit, *parameters))
            builder.emit_func_output(result)
        module = relax.pipeline.get_pipeline("zero")(builder.get())
        keys = {"kind": "llvm", "mcpu": mcpu}
        if mcpu.startswith("cortex"):
            keys |= {"mtriple": "aarch64-linux-gnu"}
        target = tvm.target.Target(keys)
        self.module = schedule_module(module, target)
        self.executable = relax.build(self.module, target=target)
        self._machine: Any = None

    @property
    def unscheduled(self) -> list[str]:
        return [
            variable.name_hint
            for variable, function in self.module.functions.items()
            if isinstance(function, tirx.PrimFunc) and "tirx.is_scheduled" not in function.attrs
        ]

    def __call__(self, *arrays: NDArray[Any]) -> NDArray[Any]:
        if self._machine is None:
            self._machine = relax.VirtualMachine(self.executable, tvm.cpu())
        arguments = [tvm.runtime.tensor(array) for array in arrays]
        return self._machine["main"](*arguments).numpy()

    def assembly(self) -> str:
        return self.executable.mod.imports[0].inspect_source("asm")


@pytest.fixture
def built() -> Callable[..., Built]:
    def build(
        write: Write,
        *shapes: Sequence[int | str],
        dtypes: Sequence[str] | None = None,
        mcpu: str = HOST,
    ) -> Built:
        return Built(write, shapes, dtypes or ["float32"] * len(shapes), mcpu)

    return build


@pytest.fixture(params=["x86-64-v3", "x86-64-v4"])
def level(request: pytest.FixtureRequest) -> str:
    needed = {"x86-64-v3": "avx2", "x86-64-v4": "avx512f"}[request.param]
    if not supports(needed):
        pytest.skip(f"this processor has no {needed}")
    return request.param
