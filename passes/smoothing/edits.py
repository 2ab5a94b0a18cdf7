"""Changes of a module's constants, gathered first and carried out at once."""

from __future__ import annotations

from typing import Any

import numpy as np
from tvm import ir, relax

from ..layers import find_layers
from ..rewrite import Rewriter, as_array, constant

_op: Any = relax.op


class Edits:
    """Constants of a module in float64, scaled as often as needed, rounded once at the end."""

    def __init__(self, rewriter: Rewriter) -> None:
        self._rewriter = rewriter
        self._constants: dict[relax.Var, dict[int, np.ndarray]] = {}
        self._inputs: dict[relax.Expr, np.ndarray] = {}

    def array(self, var: relax.Var, place: int) -> np.ndarray:
        """The constant argument at `place` of a binding, as it is by now."""
        places = self._constants.setdefault(var, {})
        if place not in places:
            call: Any = self._rewriter.values[var]
            places[place] = as_array(call.args[place]).astype(np.float64)
        return places[place]

    def scale(self, var: relax.Var, place: int, factors: np.ndarray) -> None:
        """Multiply that constant; it may become wider by broadcasting."""
        self._constants[var][place] = self.array(var, place) * factors

    def multiply_input(self, var: relax.Var, factors: np.ndarray) -> None:
        """Multiply an activation for all layers with weights that read it, and only for them."""
        self._inputs[var] = factors

    def finish(self) -> ir.IRModule:
        """The module with the changes."""
        rewriter = self._rewriter
        readers = {
            layer.var
            for layer in find_layers(rewriter.module)
            if layer.kind != "embedding" and layer.input in self._inputs
        }
        products: dict[relax.Expr, relax.Expr] = {}
        for var, value in rewriter.bindings:
            changed = self._constants.get(var, {})
            if not changed and var not in readers:
                rewriter.keep(var, value)
                continue
            assert isinstance(value, relax.Call)
            arguments = [rewriter.map(argument) for argument in value.args]
            for place, array in changed.items():
                arguments[place] = constant(array.astype(np.float32))
            if var in readers:
                read = value.args[0]
                if read not in products:
                    factors = constant(self._inputs[read].astype(np.float32))
                    products[read] = rewriter.emit(_op.multiply(arguments[0], factors), var.name)
                arguments[0] = products[read]
            call = relax.Call(value.op, arguments, value.attrs, value.ty_args)
            rewriter.replace(var, rewriter.emit(call, var.name))
        return rewriter.finish()
