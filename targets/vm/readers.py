"""Who reads each variable of a dataflow block: what decides whether kernels may be joined."""

from __future__ import annotations

from tvm import relax

from ...passes.rewrite import variables


class Readers:
    """The readers of each variable.

    Args:
        bindings: all of the block, in order.
        results: the variables that the function returns.
    """

    def __init__(
        self, bindings: list[tuple[relax.Var, relax.Expr]], results: list[relax.Var]
    ) -> None:
        self.values = dict(bindings)
        self._readers: dict[relax.Var, list[relax.Var]] = {}
        for var, value in bindings:
            for read in variables(value):
                self._readers.setdefault(read, []).append(var)
        self._results = set(results)

    def only(self, var: relax.Var) -> tuple[relax.Var, relax.Call] | None:
        """The one binding, a call, that reads `var` once; None where there is no such."""
        readers = self._readers.get(var, [])
        if len(readers) != 1 or var in self._results:
            return None
        value = self.values[readers[0]]
        return (readers[0], value) if isinstance(value, relax.Call) else None
