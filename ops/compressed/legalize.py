"""The compressed form in TIR: correct for every format, granularity and sparsity, on every target.

Nothing here is fast; what has to be is recognized by a target before it comes here.
"""

from __future__ import annotations

from collections.abc import Callable

from tvm import relax

Legalization = Callable[[relax.BlockBuilder, relax.Call], relax.Expr]

#: Annotations of blocks for those who schedule them: a step of a search, whose value the next step
#: reads several times; the weights that a `decode` gives.
STAGE, DECODED = "fewbits.stage", "fewbits.decoded"

#: For ``relax.transform.LegalizeOps``, by operator; `legalize_decode` and `legalize_activations`
#: fill it.
COMPRESSED: dict[str, Legalization] = {}


def legalizes(name: str) -> Callable[[Legalization], Legalization]:
    """Decorator: the function legalizes this operator of the compressed form."""

    def register(function: Legalization) -> Legalization:
        COMPRESSED[name] = function
        return function

    return register
