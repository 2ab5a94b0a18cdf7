"""The integer dialect (docs/architecture.md, "Integer form"): convolutions and dense layers.

Sums are exact and so is what follows them: the epilogue is the dialect's requantization, a product
of 64 bits and an arithmetic shift, and a residual addition where one reads the result alone.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Container
from typing import Any

import numpy as np
import tvm_ffi
from tvm import ir, relax, tirx

from ....ops.symbolic import extents_of
from ....passes.rewrite import as_array, constant, operator_of
from ....schedules.cuda.epilogue import Epilogue, Operand, then
from ....schedules.cuda.weight_format import Dense
from .convolution import Finish, Window, emit_convolution
from .followers import Graph
from .selection import Selection

#: TVM's expressions and types are built by calls that its annotations do not cover.
_relax: Any = relax

_PRODUCTS = frozenset({"fewbits.conv2d", "fewbits.dense"})


@dataclasses.dataclass(frozen=True, eq=False)
class IntegerLayer:
    """A product of the integer dialect, with the addition that its kernel does as well.

    Attributes:
        var: the product's variable.
        call: its value.
        last: the variable whose value the kernel stores.
        addition: the call that `last` stands for, where it is another one.
    """

    var: relax.Var
    call: Any
    last: relax.Var
    addition: Any = None

    @property
    def inner(self) -> tuple[relax.Var, ...]:
        """Variables that vanish."""
        return () if self.addition is None else (self.var,)


def find_integer_layers(
    bindings: list[tuple[relax.Var, relax.Expr]], graph: Graph
) -> dict[relax.Var, IntegerLayer]:
    """Products with constant weights, by the variable that their kernels store."""
    found: dict[relax.Var, IntegerLayer] = {}
    for var, value in bindings:
        if operator_of(value) not in _PRODUCTS:
            continue
        call: Any = value
        if not all(isinstance(argument, ir.GenericConst) for argument in call.args[1:4]):
            continue
        addition = _addition(graph, var, found)
        last = var if addition is None else addition[0]
        found[last] = IntegerLayer(var, call, last, None if addition is None else addition[1])
    return found


def _addition(
    graph: Graph, var: relax.Var, taken: Container[relax.Var]
) -> tuple[relax.Var, Any] | None:
    """The addition that alone reads a product, once, and adds something of the same shape."""
    step = graph.only(var)
    if step is None or step[0] in taken or operator_of(step[1]) != "fewbits.add":
        return None
    operands: Any = step[1].args
    alike = all(
        isinstance(o, relax.Var) and bool(tvm_ffi.structural_equal(o.ty, var.ty)) for o in operands
    )
    return step if alike and not operands[0].same_as(operands[1]) else None


def emit_integer_layer(selection: Selection, layer: IntegerLayer) -> relax.Var | None:
    """The layer's kernel, in the place of its last variable; None where there is none."""
    attrs, arguments = layer.call.attrs, layer.call.args
    epilogue = requantize(int(attrs["shift"]), int(attrs["minimum"]), int(attrs["maximum"]))
    extra: list[relax.Expr] = [
        constant(as_array(argument).astype(np.int32)) for argument in arguments[2:4]
    ]
    if layer.addition is not None:
        first = layer.addition.args[0].same_as(layer.var)
        other = layer.addition.args[1 if first else 0]
        epilogue = then(epilogue, added(layer.addition.attrs, first=bool(first)))
        extra.append(selection.matrix(selection.rewriter.map(other), "int8", "residual"))
    names = str(layer.var.name), str(layer.last.name)
    finish = Finish(epilogue, extra, names)
    x = selection.rewriter.map(arguments[0])
    weight = as_array(arguments[1])
    if operator_of(layer.call) == "fewbits.dense":
        matrix = selection.matrix(x, "int8", names[0])
        y = selection.product(
            matrix, Dense("int8"), [weight], weight.shape[0], epilogue, extra, names
        )
    else:
        top, left, bottom, right = (int(n) for n in attrs["padding"])
        down, across = (int(n) for n in attrs["strides"])
        apart = tuple(int(n) for n in attrs["dilation"])
        window = Window(
            (down, across), (top, left, bottom, right), (apart[0], apart[1]),
            int(attrs["groups"]), int(attrs["input_zero"]),
        )  # fmt: skip
        y = emit_convolution(selection, x, weight, window, finish)
    if y is None:
        return None
    sizes = extents_of(layer.last)
    return y if len(sizes) == 2 else selection.rewriter.emit(_relax.op.reshape(y, sizes), names[1])


def requantize(shift: int, minimum: int, maximum: int) -> Epilogue:
    """``clamp((((sum << shift) + bias) · multiplier) >> 32)``, exactly; both by output channel."""
    total = tirx.Var("sum", "int32")
    bias, multiplier = (Operand.of("column", "int32", name) for name in ("bias", "multiplier"))
    shifted = (total << tirx.const(shift, "int32")) if shift else total
    wide = tirx.Cast("int64", shifted + bias.element) * tirx.Cast("int64", multiplier.element)
    high = tirx.Cast("int32", wide >> tirx.const(32, "int64"))
    return Epilogue(total, _clamped(high, minimum, maximum), (bias, multiplier))


def added(attrs: Any, *, first: bool) -> Epilogue:
    """``clamp((a · a_multiplier + b · b_multiplier + bias) >> shift)`` of int8 numbers.

    Args:
        attrs: of ``fewbits.add``.
        first: whether the product is `a`; the other operand is a matrix.
    """
    total = tirx.Var("sum", "int8")
    other = Operand.of("matrix", "int8", "residual")
    mine, others = ("a", "b") if first else ("b", "a")
    terms = [
        tirx.Cast("int32", element) * tirx.const(int(attrs[f"{name}_multiplier"]), "int32")
        for element, name in ((total, mine), (other.element, others))
    ]
    whole = terms[0] + terms[1] + tirx.const(int(attrs["bias"]), "int32")
    moved = whole >> tirx.const(int(attrs["shift"]), "int32")
    value = _clamped(moved, int(attrs["minimum"]), int(attrs["maximum"]))
    return Epilogue(total, value, (other,))


def _clamped(value: Any, minimum: int, maximum: int) -> Any:
    low, high = tirx.const(minimum, "int32"), tirx.const(maximum, "int32")
    return tirx.Cast("int8", tirx.max(tirx.min(value, high), low))
