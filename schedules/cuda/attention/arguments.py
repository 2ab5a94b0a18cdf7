"""What attention's kernel is given, and the function on the host that gives it."""

from __future__ import annotations

from typing import Any

from tvm import tirx

from ..architecture import Architecture
from ..host import Parameter, host_function
from ..template import Kernel
from .combine import partial_shapes
from .problem import Attention


def attention_caller(
    problem: Attention, architecture: Architecture, kernel: Kernel, parts: int = 1
) -> Any:
    """The function on the host that launches the kernel."""
    declared = parameters(problem, *sizes_at_run_time(), parts)
    name = f"{kernel.name}_call"
    return host_function(name, architecture, declared, lambda call: call(kernel.name))


def sizes_at_run_time() -> tuple[Any, Any, Any]:
    """New variables: batch, rows, columns."""
    batch, rows, columns = (tirx.Var(name, "int64") for name in ("batch", "rows", "columns"))
    return batch, rows, columns


def parameters(
    problem: Attention, batch: Any, rows: Any, columns: Any, parts: int = 1
) -> list[Parameter]:
    """q, k, v, [mask], result; where blocks share the columns sums and states instead of it."""
    tokens = (rows, columns, columns, rows)
    names = ("q", "k", "v", "result")
    arrays: list[Parameter] = [
        (name, problem.shape(place, batch, count), problem.dtype)
        for place, (name, count) in enumerate(zip(names, tokens, strict=True))
    ]
    if problem.mask is not None:
        over = problem.mask
        shape = (
            batch if over.batch else 1, problem.heads if over.heads else 1,
            rows if over.rows else 1, columns,
        )  # fmt: skip
        arrays.insert(3, ("mask", shape, "float32"))
    if parts > 1:
        sums, states = partial_shapes(problem, parts, batch, rows)
        arrays[-1:] = [("sums", sums, "float32"), ("states", states, "float32")]
    return arrays
