"""Which modules compute in integers in libraries, and which run their QDQ form as written.

A QDQ module whose only symbolic dimension is the batch becomes the integer dialect, for one sample:
the same integers as on microcontrollers, so the results are equal bit for bit. Whoever runs it goes
through a batch sample by sample. Everything else (a symbolic sequence length, formats other than
int8) keeps its float operators around rounded values.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from tvm import ir, relax

from ...passes.interface import Interface
from ...passes.rewrite import Rewriter, operator_of
from ..mcu.integer import to_integer


@dataclasses.dataclass(frozen=True)
class Model:
    """What a library computes.

    Attributes:
        module: the oracle evaluates it.
        interface: how real inputs and outputs become codes.
        quantization: (scale, zero point) of int8 values by variable name.
        rounds: whether float values are rounded to few bits somewhere.
    """

    module: ir.IRModule
    interface: Interface
    quantization: dict[str, tuple[float, int]]
    rounds: bool


_ROUNDING = frozenset({"relax.quantize", "fewbits.fake_quantize", "fewbits.outlier_columns"})


def in_integers(module: ir.IRModule) -> Model:
    """The module in integers where it can be, else as it is."""
    operators = {operator_of(value) for _, value in Rewriter(module).bindings}
    static = _one_sample(module) if "relax.quantize" in operators else None
    if static is not None:
        model = to_integer(static)
        rest = {operator_of(value) for _, value in Rewriter(model.module).bindings}
        # One island is enough: a float sum in another order may round to the next code.
        rounds = not _ROUNDING.isdisjoint(rest)
        return Model(model.module, model.interface, model.quantization, rounds)
    function: Any = module["main"]
    outputs = len(function.attrs["output_names"])
    interface = Interface((None,) * len(function.params), (None,) * outputs)
    return Model(module, interface, {}, not _ROUNDING.isdisjoint(operators))


def _one_sample(module: ir.IRModule) -> ir.IRModule | None:
    """The module for a batch of 1; None where more than the batch is symbolic."""
    function: Any = module["main"]
    symbols: dict[Any, None] = {}
    for parameter in function.params:
        for size in parameter.ty.shape.values:
            if not isinstance(size, ir.prim.IntImm):
                symbols[size] = None
    if not symbols:
        return module
    firsts = [parameter.ty.shape.values[0] for parameter in function.params]
    if len(symbols) > 1 or not all(first.same_as(next(iter(symbols))) for first in firsts):
        return None
    bound = relax.transform.BindSymbolicVars({next(iter(symbols)): 1})(module)
    return relax.transform.Normalize()(bound)
