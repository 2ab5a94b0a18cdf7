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


def scaled(
    dtype: str,
    row: bool = True,
    column: bool = True,
    *,
    one: bool = False,
    accumulator: str = "int32",
) -> Epilogue:
    """Sums times float32 scales, as `dtype` (W8A8, spec 2).

    Args:
        dtype: of the result.
        row, column, one: which scales there are: per row, per column, one for all.
        accumulator: dtype of the sums.
    """
    total = tirx.Var("sum", accumulator)
    operands: list[Operand] = []
    value: Any = total if accumulator == "float32" else tirx.Cast("float32", total)
    extents: tuple[tuple[bool, Extends], ...] = ((row, "row"), (one, "one"), (column, "column"))
    for wanted, extends in extents:
        if not wanted:
            continue
        operand = Operand.of(extends, "float32", f"{extends}_scale")
        operands.append(operand)
        value = value * operand.element
    return Epilogue(
        total, value if dtype == "float32" else tirx.Cast(dtype, value), tuple(operands)
    )


def then(first: Epilogue, second: Epilogue) -> Epilogue:
    """Both, one after the other: the second's sum is the first's value."""
    value = first.value
    if str(value.ty.dtype) != str(second.sum.ty.dtype):
        value = tirx.Cast(str(second.sum.ty.dtype), value)
    return Epilogue(
        first.sum,
        second.at(value, [operand.element for operand in second.operands]),
        (*first.operands, *second.operands),
    )


def converted(epilogue: Epilogue, dtype: str) -> Epilogue:
    """The same, with its result in another type."""
    if epilogue.dtype == dtype:
        return epilogue
    return dataclasses.replace(epilogue, value=tirx.Cast(dtype, epilogue.value))


def stored_as(epilogue: Epilogue, place: int, dtype: str) -> Epilogue:
    """The same, with an operand's array in another type than the expression works with."""
    old = epilogue.operands[place]
    new = Operand.of(old.extends, dtype, str(old.element.name))
    elements = [o.element for o in epilogue.operands]
    elements[place] = tirx.Cast(old.dtype, new.element)
    operands = (*epilogue.operands[:place], new, *epilogue.operands[place + 1 :])
    return Epilogue(epilogue.sum, epilogue.at(epilogue.sum, elements), operands)
