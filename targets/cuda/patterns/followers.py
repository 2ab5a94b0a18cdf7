"""What follows a product and can be done before its result is stored, as an `Epilogue`.

Followers are calls that compute each element from the product's element at the same place: bias,
activation, residual, scale. Their meaning comes from the same legalizations that would otherwise
make kernels of them, so any such operator is fused, and fused or not it means the same.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Container
from typing import Any

import tvm_ffi
from tvm import ir, relax, tirx

from ....passes.rewrite import as_array, operator_of
from ....schedules.cuda.epilogue import Epilogue, Extends, Operand
from ....schedules.stages.program import inlined, loads, read, uses
from ...vm.legalize import LEGALIZATIONS
from ...vm.readers import Readers

#: TVM's expressions and types are built by calls that its annotations do not cover.
_relax: Any = relax

#: Operators that compute each element from the elements at the same place. What they compute is
#: read from their legalizations.
_ELEMENTWISE = frozenset(
    f"relax.{name}"
    for name in (
        "add", "subtract", "multiply", "divide", "power", "maximum", "minimum", "abs", "ceil",
        "floor", "round", "negative", "sign", "square", "sqrt", "rsqrt", "exp", "log", "erf",
        "sin", "cos", "sigmoid", "tanh", "clip", "nn.relu", "nn.gelu", "nn.gelu_tanh", "nn.silu",
        "nn.leakyrelu", "nn.softplus",
    )
)  # fmt: skip
#: Sizes of the small product that stands for the real one while formulas are read off.
_ROWS, _COLUMNS = 7, 13


@dataclasses.dataclass(frozen=True, eq=False)
class Followers:
    """The calls after a product that its kernel does as well.

    Attributes:
        product: the variable of the product.
        last: the variable whose value the kernel stores.
        inner: variables that vanish.
        operands: what the calls read besides, with how it extends; constants and old expressions.
        epilogue: from the product's float32 value (`Epilogue.sum`) to float32.
    """

    product: relax.Var
    last: relax.Var
    inner: tuple[relax.Var, ...]
    operands: tuple[relax.Expr, ...]
    epilogue: Epilogue


class Graph(Readers):
    """Readers of a block, and the followers of its products."""

    def followers(self, product: relax.Var, taken: Container[relax.Var]) -> Followers:
        """The longest chain of followers; `taken` variables belong to other chains already."""
        found = _Chain(product)
        while (step := self.only(found.last)) is not None and step[0] not in taken:
            if not found.take(*step):
                break
        return found.finished()


class _Chain:
    """Followers as they are found, and the small function that says what they compute."""

    def __init__(self, product: relax.Var) -> None:
        self.product = product
        self.last = product
        self.inner: list[relax.Var] = []
        self.operands: list[relax.Expr] = []
        self.extents: list[Extends] = []
        total = tirx.Var("sum", "float32")
        self.epilogue = Epilogue(total, total)

    def take(self, var: relax.Var, call: Any) -> bool:
        """Append a call; False where it is no follower."""
        if not _same_type(var, self.product) or operator_of(call) not in _ELEMENTWISE:
            return False
        operands, extents = list(self.operands), list(self.extents)
        arguments: list[Any] = []
        before = len(operands)
        for argument in call.args:
            if argument.same_as(self.last):
                arguments.append(None)
                continue
            if not isinstance(argument.ty, relax.TensorType):
                arguments.append(argument)  # a number, as the bounds of a clip are
                continue
            extends = _extends(argument, self.product)
            if extends is None:
                return False
            operands.append(argument)
            extents.append(extends)
            arguments.append(extends)
        if sum(argument is None for argument in arguments) != 1:
            return False
        formula = _formula(call, arguments)
        if formula is None:
            return False
        value, total, places = formula
        news = tuple(
            Operand.of(extends, "float32", f"operand{before + place}")
            for place, extends in enumerate(extents[before:])
        )
        swap = dict(zip(places, (o.element for o in news), strict=True))
        swap[total] = self.epilogue.value
        value = tvm_ffi.structural_map(value, [(ir.Var, lambda v: swap.get(v, v))])
        self.epilogue = Epilogue(self.epilogue.sum, value, (*self.epilogue.operands, *news))
        self.inner.append(self.last)
        self.last, self.operands, self.extents = var, operands, extents
        return True

    def finished(self) -> Followers:
        """The chain."""
        return Followers(
            self.product, self.last, tuple(self.inner), tuple(self.operands), self.epilogue
        )


def _same_type(a: Any, b: Any) -> bool:
    return bool(tvm_ffi.structural_equal(a.ty, b.ty))


def _extends(argument: Any, product: Any) -> Extends | None:
    """How an operand extends over the product [..., N]; None where it does in no known way."""
    if not isinstance(argument, relax.Var | ir.GenericConst):
        return None
    ty = argument.ty
    if not isinstance(ty, relax.TensorType) or str(ty.dtype) != "float32" or ty.shape is None:
        return None
    if isinstance(argument, ir.GenericConst):
        shape = as_array(argument).shape
        columns = product.ty.shape.values[-1]
        if all(size == 1 for size in shape):
            return "one"
        same = isinstance(columns, ir.prim.IntImm) and shape[-1] == int(columns.value)
        return "column" if same and all(size == 1 for size in shape[:-1]) else None
    return "matrix" if _same_type(argument, product) else None


_SHAPES: dict[str | None, tuple[int, ...]] = {
    None: (_ROWS, _COLUMNS),
    "matrix": (_ROWS, _COLUMNS),
    "column": (_COLUMNS,),
    "one": (1,),
    "row": (_ROWS, 1),
}


def _formula(call: Any, arguments: list[Any]) -> tuple[Any, Any, list[Any]] | None:
    """One element of the call's result.

    Args:
        call: the operator and its attributes.
        arguments: how each argument extends; None for the product; numbers as they are.

    Returns:
        The value, the variable of the product's element and those of the others; or None where the
        call does not work element by element.
    """
    builder = _relax.BlockBuilder()
    given: list[Any] = [
        relax.Var(f"a{place}", _relax.TensorType(_SHAPES[extends], "float32"))
        if extends is None or isinstance(extends, str)
        else extends
        for place, extends in enumerate(arguments)
    ]
    parameters = [value for value in given if isinstance(value, relax.Var)]
    with builder.function("main", parameters):
        with builder.dataflow():
            value = builder.emit(relax.Call(call.op, given, call.attrs, call.ty_args))
            result = builder.emit_output(value)
        builder.emit_func_output(result)
    ty: Any = result.ty
    if not isinstance(ty, relax.TensorType) or str(ty.dtype) != "float32":
        return None
    module = relax.transform.LegalizeOps(LEGALIZATIONS)(builder.get())
    functions = [f for f in module.functions.values() if isinstance(f, tirx.PrimFunc)]
    if len(functions) != 1 or len(functions[0].params) != len(parameters) + 1:
        return None
    function = functions[0]
    program = read(function)
    if program is None or not program.stages or any(s.combine for s in program.stages):
        return None
    *before, last = program.stages
    if not last.writes_in_order() or len(last.axes) != 2:
        return None
    value = last.value
    for stage in reversed(before):
        value = inlined(value, stage)
    elements = {
        param: tirx.Var(f"e{place}", "float32") for place, param in enumerate(function.params[:-1])
    }
    allowed = {axis.var for axis in last.axes}
    for load in loads(value):
        if not any(load.source.same_as(buffer) for buffer in elements):
            return None
        if not all(_is_zero(i) or any(i.same_as(v) for v in allowed) for i in load.indices):
            return None
    value = tvm_ffi.structural_map(
        value,
        [(ir.TensorLoad, lambda load: _element(elements, load))],
    )
    ordered = list(elements.values())
    place = [a for a in arguments if a is None or isinstance(a, str)].index(None)
    total = ordered.pop(place)
    if any(uses(value, variable) for variable in allowed):
        return None
    return value, total, ordered


def _element(elements: dict[Any, Any], load: Any) -> Any:
    return next(var for buffer, var in elements.items() if load.source.same_as(buffer))


def _is_zero(index: Any) -> bool:
    return isinstance(index, ir.prim.IntImm) and int(index.value) == 0
