"""The table of legalizations that `relax.transform.LegalizeOps` is given."""

from __future__ import annotations

from collections.abc import Callable

from tvm import relax

Legalization = Callable[[relax.BlockBuilder, relax.Call], relax.Expr]

#: By operator.
LEGALIZATIONS: dict[str, Legalization] = {}


def legalizes(name: str) -> Callable[[Legalization], Legalization]:
    """Decorator: the function legalizes this operator."""

    def register(function: Legalization) -> Legalization:
        LEGALIZATIONS[name] = function
        return function

    return register
