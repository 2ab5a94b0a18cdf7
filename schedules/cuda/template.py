"""The one interface of all makers of kernels, whichever tier they belong to.

A template says which products it can do, which sizes (tiles, stages, warps) there are to choose
from, and writes the kernel for one choice. `templates.py` lists them; `dispatch.py` picks.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any, Literal, Protocol

from .architecture import Architecture
from .problem import Linear

#: Which of TVM's pipelines lowers a function: s_tir schedules go through ``s_tir``.
Pipeline = Literal["tirx", "s_tir"]


@dataclasses.dataclass(frozen=True, eq=False)
class Kernel:
    """A function for the GPU, ready to be compiled.

    Attributes:
        name: its global symbol, a C identifier.
        function: the PrimFunc: launches one grid. Parameters as `Linear` says.
        architecture: what it is made for.
        pipeline: what lowers it.
        instruction: what its machine code must contain, e.g. ``IGMMA``, or None.
        options: for TVM's pass context while it is lowered.
    """

    name: str
    function: Any
    architecture: Architecture
    pipeline: Pipeline
    instruction: str | None = None
    options: tuple[tuple[str, Any], ...] = ()


class Sizes(Protocol):
    """A frozen dataclass of integers and strings: one choice out of a template's space."""


class Template(Protocol):
    """A maker of kernels for products."""

    name: str

    def refusal(self, problem: Linear, architecture: Architecture) -> str | None:
        """Why the template has no kernel for a product, or None where it has one."""
        ...

    def space(self, problem: Linear, architecture: Architecture) -> Iterator[Any]:
        """Every choice of sizes that makes a valid kernel, in a fixed order."""
        ...

    def rule(self, problem: Linear, architecture: Architecture, rows: int) -> Any:
        """The choice for about this many rows where nothing was measured."""
        ...

    def seconds(self, problem: Linear, architecture: Architecture, rows: int, sizes: Any) -> float:
        """The cost model: about how long a kernel takes. Only comparisons mean something."""
        ...

    def build(self, problem: Linear, architecture: Architecture, sizes: Any, name: str) -> Kernel:
        """The kernel. Equal arguments give equal functions."""
        ...
