"""TIR expressions as C99 without undefined behaviour.

TIR wraps around where C does not define signed overflow, and TVM's own C back end prints it as it
stands. Here every expression is printed together with its bounds (`interval.py`): arithmetic that
provably fits is printed plainly, the rest through unsigned types or the helpers of ``tir.h``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeVar

import numpy as np
from tvm import ir
from tvm.ir import prim

from ....errors import FewbitsError
from . import interval as iv
from .interval import Interval
from .text import ATOM, C_TYPES, UNARY, Text, literal

#: Through these an index is bounded by the buffer it points into, operand by operand. (Not through
#: maxima and minima: what is clamped may be anything.)
_INDEX_ARITHMETIC = frozenset(
    {prim.Add, prim.Sub, prim.Mul, prim.Cast, prim.Select}
    | {prim.IntImm, ir.Var, ir.TensorLoad, ir.Call}
)

_Printer = Callable[..., Text]
_F = TypeVar("_F", bound=_Printer)
_PRINTERS: dict[type, _Printer] = {}


def prints(*types: type) -> Callable[[_F], _F]:
    """Decorator: ``function(printer, expression)`` prints expressions of these types."""

    def register(function: _F) -> _F:
        for kind in types:
            _PRINTERS[kind] = function
        return function

    return register


class ExpressionPrinter:
    """Prints expressions; the statement printer tells it names and ranges.

    How each kind of expression is printed is in `arithmetic`, `bits`, `calls`, `conversions` and
    `logic`; here are the leaves.

    Attributes:
        names: C names of variables and buffers, by TIR variable.
        types: C types of variables, where they are not the TIR ones.
        scalars: buffers of one element, kept in a C variable.
        ranges: bounds of variables.
        lets: values of variables that exist within one expression only.
        index_bound: within an index the number of elements it may point to.
        layer: the model's layer, for errors.
    """

    def __init__(self, layer: str) -> None:
        self.layer = layer
        self.names: dict[ir.Var, str] = {}
        self.types: dict[ir.Var, str] = {}
        self.lets: dict[ir.Var, Text] = {}
        self.index_bound: int | None = None
        self.scalars: set[ir.Var] = set()
        self.ranges: dict[ir.Var, Interval] = {}

    def __call__(self, expression: ir.Expr) -> Text:
        """The expression in C.

        Raises:
            FewbitsError: ``no-kernel`` for what has no C form.
        """
        printer = _PRINTERS.get(type(expression))
        if printer is None:
            raise self.refusal(f"expression {type(expression).__name__}")
        if self.index_bound is not None and type(expression) not in _INDEX_ARITHMETIC:
            bound, self.index_bound = self.index_bound, None
            text = printer(self, expression)
            self.index_bound = bound
            return text
        return printer(self, expression)

    def refusal(self, what: str) -> FewbitsError:
        """The error for something that cannot be printed."""
        return FewbitsError(
            "no-kernel",
            f"no microcontroller code can be generated for this operator: {what}",
            where=self.layer,
            hint="replace the operator, or run this part of the model on the host",
        )

    def dtype(self, expression: ir.Expr) -> str:
        """The dtype's name, if C has that type."""
        name = str(expression.ty.dtype)
        if name not in C_TYPES:
            raise self.refusal(f"{name} arithmetic")
        return name

    def place(self, buffer: ir.Var, indices: list[ir.Expr]) -> str:
        """A buffer's element as something that can be read or assigned."""
        name = self.names[buffer]
        if buffer in self.scalars:
            return name
        if len(indices) != 1:
            raise self.refusal("a buffer that was not flattened")
        outer = self.index_bound
        self.index_bound = math.prod(int(extent) for extent in buffer.ty.shape)
        index = self(indices[0])
        self.index_bound = outer
        return f"{name}[{index.code}]"


@prints(prim.IntImm)
def _integer(printer: ExpressionPrinter, expression: prim.IntImm) -> Text:
    return literal(int(expression.value), printer.dtype(expression))


@prints(prim.FloatImm)
def float_literal(printer: ExpressionPrinter, expression: prim.FloatImm) -> Text:
    """The shortest decimal that is exactly this value."""
    dtype = printer.dtype(expression)
    single = dtype == "float32"
    value = float(np.float32(expression.value)) if single else float(expression.value)
    if math.isnan(value):
        return Text("FB_NAN", ATOM, dtype, iv.constant(value))
    if math.isinf(value):
        code = "FB_INFINITY" if value > 0 else "-FB_INFINITY"
    else:
        code = f"{np.float32(value)!s}f" if single else repr(value)
        if "e" in code and "." not in code:
            code = code.replace("e", ".0e")
    precedence = UNARY if code.startswith("-") else ATOM
    return Text(code, precedence, dtype, iv.constant(value))


@prints(prim.Let)
def _inline(printer: ExpressionPrinter, expression: prim.Let) -> Text:
    printer.lets[expression.var] = printer(expression.value)
    return printer(expression.body)


@prints(ir.Var)
def _variable(printer: ExpressionPrinter, variable: ir.Var) -> Text:
    if variable in printer.lets:
        return printer.lets[variable]
    dtype = printer.dtype(variable)
    known = printer.ranges.get(variable, iv.of_dtype(dtype))
    return Text(printer.names[variable], ATOM, printer.types.get(variable, dtype), known)


@prints(ir.TensorLoad)
def _load(printer: ExpressionPrinter, load: ir.TensorLoad) -> Text:
    dtype = printer.dtype(load)
    bound = printer.index_bound
    text = Text(printer.place(load.source, load.indices), ATOM, dtype, iv.of_dtype(dtype))
    if bound is None or dtype not in ("int32", "int64"):
        return text
    # An index beyond its buffer would read foreign memory whatever is assumed of it here.
    code, precedence = text.code, ATOM
    if dtype == "int64":
        code, precedence = f"(int32_t){text.code}", UNARY
    return Text(code, precedence, "int32", Interval(-bound, bound))
