"""One-shot compression of one layer's weight matrix: plain functions on tensors, no graph.

    hessian = Hessian(columns)
    for x in batches:
        hessian.add(x)
    solution = solve(weight, hessian, SolverOptions("gptq", parse_format("int4")))

A matrix is ``[rows, columns]``: outputs, and what is summed over. `solve` is a pure function of its
arguments and deterministic; tensors may live on a CPU or a GPU.
"""

from __future__ import annotations

from .hessian import Hessian
from .options import SolverOptions
from .solution import Solution
from .solve import solve

__all__ = ["Hessian", "Solution", "SolverOptions", "solve"]
