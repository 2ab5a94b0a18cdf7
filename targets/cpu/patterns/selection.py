"""A module on its way to kernels: the bindings emitted so far, and the functions they call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import tvm
from tvm import relax

from ....ops.symbolic import Extent, extents_of, simplified
from ....passes.rewrite import Rewriter, constant
from ....schedules.cpu.intrinsics import DotProduct
from ....schedules.cpu.machine import Machine
from ....schedules.tuning.choices import Choices
from ....schedules.tuning.sites import choose_kernel
from ...vm.calls import Calls
from .chains import Chain

#: TVM's expressions and types are built by calls that its annotations do not cover.
_relax: Any = relax


class Kernel(Protocol):
    """A generator of a function; equal generators make equal functions."""

    def build(self) -> Any:
        """The PrimFunc: inputs first, then outputs."""
        ...


class Selection(Calls):
    """What rules need to put a kernel in.

    Attributes:
        target: what is compiled for.
        choices: decides about the sizes of kernels.
        dot: its instruction for int8 products.
        machine: its vector unit.
        quantized: codes and scales of the values that were quantized already.
    """

    def __init__(
        self, rewriter: Rewriter, target: tvm.target.Target, choices: Choices | None = None
    ) -> None:
        self.target = target
        self.choices = choices or Choices()
        self.dot = DotProduct.of(target)
        self.machine = Machine.of(target)
        super().__init__(rewriter)
        self.quantized: dict[tuple[relax.Expr, Any], tuple[relax.Expr, relax.Expr | None]] = {}

    def emit(
        self, kernel: Kernel, inputs: Sequence[relax.Expr], results: Sequence[Any], name: str
    ) -> relax.Var:
        """Call a kernel; `results` are the types of what it writes, several make a tuple."""
        kernel = choose_kernel(self.choices, self.machine, kernel, inputs, results, name)
        if kernel not in self.functions:
            function = kernel.build()
            title = self.unique(str(function.attrs["global_symbol"]))
            function = function.without_attr("global_symbol")
            # A builder gives the variable the function's type, which calls need.
            self.functions[kernel] = (_relax.BlockBuilder().add_func(function, title), function)
        variable, _ = self.functions[kernel]
        types = list(results) if len(results) > 1 else results[0]
        call = _relax.call_tir(variable, _relax.Tuple(list(inputs)), types)
        return self.rewriter.emit(call, name)

    def emit_layer(
        self, kernel: Kernel, inputs: Sequence[relax.Expr], chain: Chain, outputs: int, name: str
    ) -> relax.Var:
        """Call a kernel that ends in an `Output`; the chain's operands come after `inputs`."""
        extra: list[relax.Expr] = []
        if chain.bias is not None:
            extra.append(constant(padded(chain.bias, self.machine.lanes, outputs)))
        if chain.addend is not None:
            extra.append(self.rewriter.map(chain.addend))
        return self.emit(kernel, [*inputs, *extra], [chain.last.ty], name)


def leading(expression: relax.Expr) -> tuple[Extent, ...]:
    """Sizes before the last."""
    return extents_of(expression)[:-1]


def known(sizes: Sequence[Extent]) -> tuple[int | None, ...]:
    """The sizes as kernels take them: None for one known only at run time."""
    return tuple(size if isinstance(size, int) else None for size in sizes)


def count(sizes: Sequence[Extent]) -> Extent:
    """The product of sizes."""
    total: Any = 1
    for size in sizes:
        total = total * size
    return simplified(total)


def padded(vector: np.ndarray, lanes: int, outputs: int) -> np.ndarray:
    """A vector per output, filled up to whole registers with zeros."""
    return np.pad(vector, (0, -outputs % lanes))
