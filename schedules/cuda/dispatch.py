"""Which kernel computes a product for how many rows, and the host function that picks at run time.

Numbers of rows fall into buckets. For each, the choice is a measured record where there is one,
else what the templates' cost models prefer; neighbouring buckets share a kernel where that costs
little, because every kernel is machine code in the library.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from tvm import tirx
from tvm.tirx.script import builder

from ...errors import FewbitsError
from .architecture import Architecture
from .host import Parameter, host_function
from .parameters import operand_shape
from .problem import Linear
from .template import Kernel, Template
from .templates import suitable

#: TVM's builder; its annotations are narrower than what it gives.
T: Any = builder

#: A bucket holds the rows up to its bound and above the one before; the last has no end.
BOUNDS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192)

#: A kernel that another bucket has already may take this many times as long as the best one.
_SHARING = 1.1


@dataclasses.dataclass(frozen=True, eq=False)
class Choice:
    """A template with sizes, for a bucket.

    Attributes:
        template: makes the kernel.
        sizes: out of its space.
        seconds: by the cost model, or measured.
        measured: whether a measurement said so; such a choice is not replaced by a neighbour's.
    """

    template: Template
    sizes: Any
    seconds: float = 0.0
    measured: bool = False

    @property
    def label(self) -> str:
        """What makes two choices the same kernel."""
        return f"{self.template.name} {self.sizes}"

    @property
    def title(self) -> str:
        """The kernel in a report: the template, and the results of a block where it has tiles."""
        rows, columns = (getattr(self.sizes, side, None) for side in ("rows", "columns"))
        tile = "" if rows is None or columns is None else f" {rows}x{columns}"
        return f"{self.template.name}{tile}{' (tuned)' if self.measured else ''}"


class Chooser(Protocol):
    """Knows better than the cost models, e.g. from records of measurements."""

    def choose(
        self, problem: Linear, architecture: Architecture, rows: int, options: Sequence[Template]
    ) -> Choice | None:
        """The choice for about this many rows, or None to leave it to the models."""
        ...


@dataclasses.dataclass(frozen=True, eq=False)
class Dispatch:
    """A product's kernels for one architecture.

    Attributes:
        name: the host function's.
        host: a PrimFunc (x, the weight's arrays, the epilogue's operands, y) that calls a kernel.
        kernels: what it calls.
        buckets: the last number of rows (None: any more) and the kernel's place in `kernels`.
        labels: what makes kernels different, in their order.
        titles: of the kernels, for reports; several may share one.
    """

    name: str
    host: Any
    kernels: tuple[Kernel, ...]
    buckets: tuple[tuple[int | None, int], ...]
    labels: tuple[str, ...]
    titles: tuple[str, ...]


def dispatch(
    problem: Linear,
    architecture: Architecture,
    name: str,
    *,
    rows: int | None = None,
    most: int | None = None,
    chooser: Chooser | None = None,
) -> Dispatch:
    """Kernels for a product, and the function that picks among them.

    Args:
        problem: the product.
        architecture: what the kernels are for.
        name: a C identifier that no other product of the module has.
        rows: how many there are, where that is known at compile time.
        most: rows never exceed this.
        chooser: asked before the cost models.

    Raises:
        FewbitsError: ``no-kernel`` where no template takes the product.
    """
    options = suitable(problem, architecture)
    if not options:
        raise _no_kernel(problem, architecture)
    buckets = [rows] if rows is not None else _buckets(most)
    choices = [choose(problem, architecture, bound, options, chooser) for bound in buckets]
    choices = _shared(problem, architecture, buckets, choices)
    by_label: dict[str, Choice] = {}
    for choice in choices:
        if choice.measured or choice.label not in by_label:
            by_label[choice.label] = choice
    labels = list(by_label)
    kernels = []
    for place, choice in enumerate(by_label.values()):
        kernels.append(
            choice.template.build(
                problem, architecture, choice.sizes, f"{name}_{architecture.name}_k{place}"
            )
        )
    bounds: list[tuple[int | None, int]] = []
    for bound, choice in zip(buckets, choices, strict=True):
        place = labels.index(choice.label)
        if bounds and bounds[-1][1] == place:
            bounds.pop()
        bounds.append((bound, place))
    bounds[-1] = (None, bounds[-1][1])
    host = _host(problem, architecture, f"{name}_{architecture.name}", kernels, bounds)
    return Dispatch(
        f"{name}_{architecture.name}",
        host,
        tuple(kernels),
        tuple(bounds),
        tuple(labels),
        tuple(choice.title for choice in by_label.values()),
    )


def digest(problem: Linear) -> str:
    """A short name for a product: equal ones share it."""
    return hashlib.sha256(problem.key.encode()).hexdigest()[:10]


def _buckets(most: int | None) -> list[int]:
    if most is None:
        return list(BOUNDS)
    inside = [bound for bound in BOUNDS if bound < most]
    return [*inside, most]


def choose(
    problem: Linear,
    architecture: Architecture,
    rows: int,
    options: Sequence[Template],
    chooser: Chooser | None = None,
) -> Choice:
    """The kernel for about this many rows, before neighbours share theirs.

    Args:
        problem: the product.
        architecture: what the kernel is for.
        rows: about how many there are.
        options: templates that take the product.
        chooser: asked before the cost models.

    Raises:
        FewbitsError: ``no-kernel`` where none of the templates has sizes for it.
    """
    known = None
    if chooser is not None:
        known = chooser.choose(problem, architecture, rows, options)
    if known is not None:
        return known
    found: list[Choice] = []
    for template in options:
        sizes = template.rule(problem, architecture, rows)
        if sizes is not None:
            seconds = template.seconds(problem, architecture, rows, sizes)
            found.append(Choice(template, sizes, seconds))
    if not found:
        raise _no_kernel(problem, architecture)
    return min(found, key=lambda choice: choice.seconds)


def _shared(
    problem: Linear, architecture: Architecture, buckets: Sequence[int], choices: list[Choice]
) -> list[Choice]:
    """The choices, with neighbours' kernels where they are nearly as fast.

    From the largest bucket down: kernels for many rows cannot be spared, and often serve fewer.
    """
    result = list(choices)
    for place in range(len(result) - 2, -1, -1):
        mine, next_one = result[place], result[place + 1]
        if mine.measured or mine.label == next_one.label:
            continue
        seconds = next_one.template.seconds(problem, architecture, buckets[place], next_one.sizes)
        if seconds <= _SHARING * mine.seconds:
            result[place] = Choice(next_one.template, next_one.sizes, seconds)
    return result


def _host(
    problem: Linear,
    architecture: Architecture,
    name: str,
    kernels: Sequence[Kernel],
    bounds: Sequence[tuple[int | None, int]],
) -> Any:
    """``if rows <= bound: kernel ... else ...`` over packed calls."""
    m = tirx.Var("m", "int64")
    parameters: list[Parameter] = [("x", (m, problem.inputs), problem.activation)]
    parameters += [
        (array.name, array.shape, array.dtype)
        for array in problem.weight.arrays(problem.outputs, problem.inputs)
    ]
    parameters += [
        (f"operand{place}", operand_shape(operand, m, problem.outputs), operand.dtype)
        for place, operand in enumerate(problem.epilogue.operands)
    ]
    parameters.append(("y", (m, problem.outputs), problem.epilogue.dtype))

    def write(call: Callable[[str], None]) -> None:
        def branch(remaining: Sequence[tuple[int | None, int]]) -> None:
            bound, place = remaining[0]
            if bound is None:
                call(kernels[place].name)
                return
            with T.If(m <= bound):
                with T.Then():
                    call(kernels[place].name)
                with T.Else():
                    branch(remaining[1:])

        branch(bounds)

    return host_function(name, architecture, parameters, write)


def _no_kernel(problem: Linear, architecture: Architecture) -> FewbitsError:
    from .templates import templates

    reasons = "; ".join(f"{t.name}: {t.refusal(problem, architecture)}" for t in templates())
    return FewbitsError(
        "no-kernel",
        f"no kernel of {architecture.name} computes {problem.key} ({reasons})",
        hint="choose another recipe for this layer, or `ignore` it in the recipe",
    )
