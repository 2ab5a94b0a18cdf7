"""What follows a product and can be done before its result is stored.

A chain is ``product [+ tensor] [+ bias] [activation] [+ tensor]`` where nobody else reads the
values between. The kernel of the product then writes the chain's last value at once.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Container
from typing import Any

import numpy as np
import tvm_ffi
from tvm import ir, relax

from ....passes.rewrite import as_array, operator_of
from ....schedules.cpu.intrinsics_epilogue import PLAIN, Activation, Epilogue
from ...vm.readers import Readers

_ACTIVATIONS: dict[str, Activation] = {
    "relax.nn.relu": "relu",
    "relax.nn.gelu": "gelu",
    "relax.nn.silu": "silu",
    "relax.tanh": "tanh",
    "relax.sigmoid": "sigmoid",
}


@dataclasses.dataclass(frozen=True, eq=False)
class Chain:
    """A product and what its kernel does to the result.

    Attributes:
        last: the variable whose value the kernel computes.
        inner: the variables that vanish: the product's and those between.
        epilogue: see `Epilogue`.
        bias: [N] float32, or None.
        addend: an expression of the output's shape, or None.
    """

    last: relax.Var
    inner: tuple[relax.Var, ...]
    epilogue: Epilogue = PLAIN
    bias: np.ndarray | None = None
    addend: relax.Expr | None = None


class Chains(Readers):
    """Readers of a block, and the chains that its products begin."""

    def chain(self, product: relax.Var, taken: Container[relax.Var]) -> Chain:
        """The longest chain from a product on.

        Args:
            product: the variable of the matrix product.
            taken: variables that belong to other chains already.
        """
        inner: list[relax.Var] = []
        last, steps = product, PLAIN
        bias: np.ndarray | None = None
        addend: relax.Expr | None = None
        while (found := self.only(last)) is not None and found[0] not in taken:
            var, call = found
            operator = operator_of(call)
            if operator == "relax.add":
                other = call.args[1] if call.args[0].same_as(last) else call.args[0]
                if (vector := _bias(other, product)) is not None:
                    if steps.bias or steps.activation or steps.addend == "last":
                        break
                    bias, steps = vector, dataclasses.replace(steps, bias=True)
                elif addend is None and _same_shape(other, product):
                    first = not (steps.bias or steps.activation)
                    steps = dataclasses.replace(steps, addend="first" if first else "last")
                    addend = other
                else:
                    break
            elif operator in _ACTIVATIONS and not steps.activation and steps.addend != "last":
                steps = dataclasses.replace(steps, activation=_ACTIVATIONS[operator])
            else:
                break
            inner.append(last)
            last = var
        return Chain(last, tuple(inner), steps, bias, addend)


def _bias(expression: relax.Expr, product: relax.Var) -> np.ndarray | None:
    """A constant that adds one number per output channel, as [N]."""
    if not isinstance(expression, ir.GenericConst):
        return None
    array = as_array(expression)
    shape: Any = product.ty.shape.values
    outputs = int(shape[-1])
    if array.dtype != np.float32 or array.ndim > len(shape) or array.size not in (1, outputs):
        return None
    if array.size == outputs and (array.ndim == 0 or array.shape[-1] != outputs):
        return None
    return np.ascontiguousarray(np.broadcast_to(array.reshape(-1), (outputs,)))


def _same_shape(expression: relax.Expr, product: relax.Var) -> bool:
    if not isinstance(expression, relax.Var):
        return False
    mine: Any = expression.ty
    return bool(tvm_ffi.structural_equal(mine, product.ty)) and str(mine.dtype) == "float32"
