"""What happens to a sum before it is stored, as one expression.

Bias, scales, activations, residuals and requantization are all of this kind, so kernels know none
of them: a kernel asks for the value of an element, given its sum and the operands' elements.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, Literal

import tvm_ffi
from tvm import ir, tirx

#: Along what an operand extends: [M], [N], [M, N], or one number [1].
Extends = Literal["row", "column", "matrix", "one"]


@dataclasses.dataclass(frozen=True, eq=False)
class Operand:
    """An array that an epilogue reads one element of.

    Attributes:
        extends: its shape: ``row`` [M], ``column`` [N], ``matrix`` [M, N], ``one`` [1].
        dtype: of its elements.
        element: the variable that stands for the element in the epilogue's value.
    """

    extends: Extends
    dtype: str
    element: Any

    @staticmethod
    def of(extends: Extends, dtype: str, name: str) -> Operand:
        """An operand with a new variable."""
        return Operand(extends, dtype, tirx.Var(name, dtype))


@dataclasses.dataclass(frozen=True, eq=False)
class Epilogue:
    """``y[m, n] = value`` where `value` has variables for the sum and for operands' elements.

    Attributes:
        sum: stands for the sum: an int32 or float32 variable.
        value: the expression, of the output's dtype.
        operands: in the order of the kernel's parameters.
    """

    sum: Any
    value: Any
    operands: tuple[Operand, ...] = ()

    @property
    def dtype(self) -> str:
        """The output's dtype."""
        return str(self.value.ty.dtype)

    def at(self, total: Any, elements: Sequence[Any]) -> Any:
        """The value of one element.

        Args:
            total: its sum, an expression.
            elements: of the operands, in their order.
        """
        places = {self.sum: total}
        places |= {o.element: e for o, e in zip(self.operands, elements, strict=True)}
        return tvm_ffi.structural_map(self.value, [(ir.Var, lambda var: places.get(var, var))])

    @property
    def key(self) -> str:
        """Text that equal epilogues share, for names and records."""
        names = {self.sum: tirx.Var("sum", str(self.sum.ty.dtype))}
        for place, operand in enumerate(self.operands):
            names[operand.element] = tirx.Var(f"{operand.extends}{place}", operand.dtype)
        value = tvm_ffi.structural_map(self.value, [(ir.Var, lambda var: names.get(var, var))])
        return f"{value} : {self.dtype}"


def plain(accumulator: str, dtype: str) -> Epilogue:
    """The sum itself, converted: ``int32`` or ``float32`` to `dtype`."""
    total = tirx.Var("sum", accumulator)
    return Epilogue(total, total if accumulator == dtype else tirx.Cast(dtype, total))


def scaled(dtype: str, row: bool = True, column: bool = True) -> Epilogue:
    """int32 sums times float32 scales per row and per column (W8A8, spec 2), as `dtype`."""
    total = tirx.Var("sum", "int32")
    operands: list[Operand] = []
    value: Any = tirx.Cast("float32", total)
    extents: tuple[tuple[bool, Extends], ...] = ((row, "row"), (column, "column"))
    for wanted, extends in extents:
        if not wanted:
            continue
        operand = Operand.of(extends, "float32", f"{extends}_scale")
        operands.append(operand)
        value = value * operand.element
    return Epilogue(
        total, value if dtype == "float32" else tirx.Cast(dtype, value), tuple(operands)
    )
