"""Which kernel convolves, for how many pixels, and the function on the host that launches it."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np
from tvm.tirx.script import builder

from ..architecture import Architecture
from ..host import host_function
from ..template import Kernel
from .implicit import ImplicitGemm
from .parameters import Extents, parameters
from .problem import Convolution
from .window_template import Windows

#: TVM's builder; its annotations are narrower than what it gives.
T: Any = builder

#: Kernels are made for about so many results where the number is known at run time only.
BOUNDS = (1024, 16384)
_MANY = 1 << 17


class ConvolutionTemplate(Protocol):
    """A maker of kernels for convolutions, like `template.Template` for products."""

    name: str

    def refusal(self, problem: Convolution, architecture: Architecture) -> str | None:
        """Why there is no kernel, or None where there is one."""
        ...

    def weight(self, problem: Convolution) -> tuple[tuple[int, ...], str]:
        """Shape and dtype of the stored weight."""
        ...

    def pack(self, problem: Convolution, weight: np.ndarray) -> np.ndarray:
        """The stored weight of [O, kh, kw, I / groups]."""
        ...

    def space(self, problem: Convolution, architecture: Architecture) -> Iterator[Any]:
        """Every choice of sizes that makes a valid kernel, in a fixed order."""
        ...

    def rule(self, problem: Convolution, architecture: Architecture, rows: int) -> Any:
        """The choice for about this many rows where nothing was measured."""
        ...

    def seconds(
        self, problem: Convolution, architecture: Architecture, rows: int, sizes: Any
    ) -> float:
        """The cost model: about how long a kernel takes. Only comparisons mean something."""
        ...

    def title(self, sizes: Any) -> str:
        """The kernel in a report."""
        ...

    def build(
        self, problem: Convolution, architecture: Architecture, sizes: Any, name: str
    ) -> Kernel:
        """The kernel. Equal arguments give equal functions."""
        ...


#: The most special first. The last takes everything.
TEMPLATES: tuple[ConvolutionTemplate, ...] = (ImplicitGemm(), Windows())


def convolution_template(
    problem: Convolution, architecture: Architecture
) -> ConvolutionTemplate | None:
    """The first template that has a kernel: all numbers of rows share its weight's layout."""
    suitable = (t for t in TEMPLATES if t.refusal(problem, architecture) is None)
    return next(suitable, None)


@dataclasses.dataclass(frozen=True, eq=False)
class Convolve:
    """A convolution's kernels for one architecture.

    Attributes:
        host: a PrimFunc (x, weight, filling, the epilogue's operands, y) that calls a kernel.
        kernels: what it calls.
        titles: of the kernels, for reports; several may share one.
    """

    host: Any
    kernels: tuple[Kernel, ...]
    titles: tuple[str, ...]


def convolve(
    problem: Convolution,
    template: ConvolutionTemplate,
    architecture: Architecture,
    name: str,
    rows: int | None = None,
) -> Convolve:
    """Kernels for a convolution, and the function that picks among them.

    Args:
        problem: the convolution.
        template: which has a kernel for it.
        architecture: what the kernels are for.
        name: a C identifier that no other function of the module has.
        rows: results of each output channel, where that is known at compile time.
    """
    bounds: list[int | None] = [None] if rows is not None else [*BOUNDS, None]
    about = [rows] if rows is not None else [*BOUNDS, _MANY]
    sizes = [template.rule(problem, architecture, count) for count in about]
    different = list(dict.fromkeys(sizes))
    kernels = tuple(
        template.build(problem, architecture, each, f"{name}_k{place}")
        for place, each in enumerate(different)
    )
    extents = Extents.of(problem)

    def write(call: Callable[[str], None]) -> None:
        def branch(remaining: Sequence[tuple[int | None, Any]]) -> None:
            (bound, chosen), *rest = remaining
            if all(other == chosen for _, other in rest):
                call(kernels[different.index(chosen)].name)
                return
            with T.If(extents.rows <= bound):
                with T.Then():
                    call(kernels[different.index(chosen)].name)
                with T.Else():
                    branch(rest)

        branch(list(zip(bounds, sizes, strict=True)))

    declared = parameters(problem, extents, template.weight(problem))
    host = host_function(name, architecture, declared, write)
    return Convolve(host, kernels, tuple(template.title(each) for each in different))


def convolution_digest(problem: Convolution) -> str:
    """A short name for a convolution: equal ones share it."""
    return hashlib.sha256(problem.key.encode()).hexdigest()[:10]
