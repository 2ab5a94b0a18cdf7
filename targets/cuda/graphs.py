"""CUDA graphs: launches that are recorded once and repeated with one call of the driver.

TVM's `RewriteCUDAGraph` lifts runs of launches that read and write planned memory alone: it records
them at the first call and replays them later. What a caller's arrays are read or written by, stays
a plain launch, as the addresses differ from call to call. Rules:

- A model whose sizes are all known is recorded, between its inputs and its outputs.
- A model with symbolic sizes is recorded for each tuple of sizes where every one has an upper
  bound, as then its memory can be planned; it is launched plainly where one has none.
"""

from __future__ import annotations

from typing import Any

from tvm import ir

from ...ops.evaluate import largest_sizes
from ...ops.symbolic import is_symbol

#: Where `RewriteCUDAGraph` looks for the sizes that recordings may depend on.
_CAPTURED = "relax.rewrite_cuda_graph.capture_symbolic_vars"


def symbols_of(function: Any) -> list[str]:
    """The symbolic dimensions of a function's parameters, in order."""
    names: dict[str, None] = {}
    for parameter in function.params:
        for size in parameter.ty.shape.values:
            if is_symbol(size):
                names[str(size.name)] = None
    return list(names)


def allow_graphs(module: ir.IRModule) -> ir.IRModule:
    """``main`` says which of its sizes recordings may depend on.

    Args:
        module: before memory is planned.
    """
    function: Any = module["main"]
    symbols = symbols_of(function)
    if symbols and set(symbols) <= largest_sizes(module).keys():
        module["main"] = function.with_attr(_CAPTURED, symbols)
    return module
