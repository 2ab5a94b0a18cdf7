"""Which kernel of a binary product runs for how many rows, and the function that picks."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from tvm import tirx
from tvm.tirx.script import builder

from ..architecture import Architecture
from ..host import host_function
from ..template import Kernel
from .kernel import binary_product
from .problem import BinaryProduct
from .sizes import Sizes, rule

#: TVM's builder; its annotations are narrower than what it gives.
T: Any = builder

#: Few rows, and how many stand for more.
_FEW, _MANY = 16, 1024


@dataclasses.dataclass(frozen=True, eq=False)
class Binary:
    """A product's kernels.

    Attributes:
        host: a PrimFunc with the product's parameters that calls a kernel.
        kernels: what it calls.
        sizes: of the kernels.
    """

    host: Any
    kernels: tuple[Kernel, ...]
    sizes: tuple[Sizes, ...]

    @property
    def title(self) -> str:
        """For reports: the results of a block."""
        return " and ".join(dict.fromkeys(f"{s.rows}x{s.columns}" for s in self.sizes))


def binary_kernels(
    problem: BinaryProduct, architecture: Architecture, name: str, rows: int | None = None
) -> Binary:
    """Kernels for few rows and for many, or one where that is the same, or `rows` is known.

    Args:
        problem: one without a `refusal`.
        architecture: what the kernels are for.
        name: a C identifier that no other function of the module has.
        rows: M, where it is known at compile time.
    """
    wanted = (_FEW, _MANY) if rows is None else (rows,)
    chosen = [rule(problem, architecture, count) for count in wanted]
    sizes = tuple(dict.fromkeys(chosen))
    kernels = tuple(
        binary_product(problem, architecture, choice, f"{name}_k{place}")
        for place, choice in enumerate(sizes)
    )
    m = tirx.Var("m", "int64")
    pixels = 1
    if problem.window is not None:
        pixels = problem.window.output[0] * problem.window.output[1]

    def write(call: Callable[[str], None]) -> None:
        if len(kernels) == 1:
            call(kernels[0].name)
            return
        with T.If(m <= _FEW // pixels):
            with T.Then():
                call(kernels[0].name)
            with T.Else():
                call(kernels[1].name)

    host = host_function(f"{name}_call", architecture, problem.parameters(m), write)
    return Binary(host, kernels, sizes)
