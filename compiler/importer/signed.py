"""Unsigned codes become signed ones: 128 less, zero points as well.

Everything after import knows int8 only. A uint8 tensor of codes is the int8 tensor that is 128
less everywhere; what is computed from the difference to the zero point does not change, and moving
data does not care. Where unsigned integers are ordinary numbers (an image on its way to a cast,
the model's own uint8 inputs and outputs) they stay what they are, and the two views meet in a
flipped top bit. uint16 becomes int16 likewise.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from tvm import ir, relax

from .node import Builder
from .values import dtype_of

op: Any = relax.op  # its annotations are narrower than what it takes

_SIGNED = {"uint8": "int8", "uint16": "int16"}
_HALF = {"uint8": 2**7, "uint16": 2**15}

#: Operators that mean the same on shifted operands, and whose result is shifted as they are.
_MOVES = {
    f"relax.{name}"
    for name in (
        *("broadcast_to", "concat", "expand_dims", "flatten", "flip", "gather_elements"),
        *("gather_nd", "max", "maximum", "min", "minimum", "nn.max_pool1d", "nn.max_pool2d"),
        *("nn.max_pool3d", "nn.pad", "permute_dims", "repeat", "reshape", "split", "squeeze"),
        *("stack", "strided_slice", "take", "tile", "where"),
    )
}
#: Operators that only compare their operands: shifted operands give the same result.
_ORDERS = {
    f"relax.{name}"
    for name in (
        *("argmax", "argmin", "equal", "not_equal"),
        *("greater", "greater_equal", "less", "less_equal"),
    )
}


def sign_codes(builder: Builder, outputs: list[relax.Var]) -> list[relax.Var]:
    """Rewrite the builder's bindings; returns the outputs, whose types stay as they are."""
    return _Signer(builder).run(outputs)


class _Signer:
    """Every old variable has a plain new one (same value), a signed one (shifted), or both.

    Either is emitted when somebody asks for it.
    """

    def __init__(self, builder: Builder) -> None:
        self.builder = builder
        self.old = {binding.var: binding.value for binding in builder.bindings}
        self.signed: dict[relax.Var, relax.Expr] = {}
        self.plain: dict[relax.Var, relax.Expr] = {}

    def run(self, outputs: list[relax.Var]) -> list[relax.Var]:
        bindings = list(self.builder.bindings)
        if not any(_involved(binding) for binding in bindings):
            return outputs
        self.builder.bindings.clear()
        for binding in bindings:
            self._convert(binding.var, binding.value)
        results = []
        for output in outputs:
            result = self._plain(output)
            assert isinstance(result, relax.Var)
            results.append(result)
        return results

    def _convert(self, var: relax.Var, value: Any) -> None:
        if isinstance(value, relax.TupleGetItem):
            self._field(var, value)
        elif isinstance(value, relax.Call):
            self._call(var, value)
        else:
            self.plain[var] = self._bind(value, var)

    def _field(self, var: relax.Var, field: Any) -> None:
        source = field.tuple_value
        views = self.signed if source in self.signed else self.plain
        views[var] = self._bind(relax.TupleGetItem(views[source], field.index), var)

    def _call(self, var: relax.Var, call: Any) -> None:
        operator = call.op.name
        if operator == "relax.quantize" and _unsigned(var):
            data, scale, zero = call.args
            data, scale, zero = self._plain(data), self._plain(scale), self._signed(zero)
            dtype = _SIGNED[dtype_of(var)]
            self.signed[var] = self._bind(
                op.quantize(data, scale, zero, call.attrs.axis, dtype), var
            )
        elif operator == "relax.dequantize" and _unsigned(call.args[0]):
            data, scale, zero = call.args
            arguments = [self._signed(data), self._plain(scale), self._signed(zero)]
            self.plain[var] = self._bind(relax.Call(call.op, arguments, call.attrs), var)
        elif operator in _MOVES and _unsigned(var) and self._any_signed(call):
            self.signed[var] = self._bind(self._moved(call), var)
        elif operator in _ORDERS and self._any_signed(call):
            self.plain[var] = self._bind(self._with(call, self._codes), var)
        elif operator == "relax.astype" and (codes := self._flipped(call)) is not None:
            self.plain[var] = codes
        elif not (operator == "relax.bitwise_xor" and call.args[0] in self.signed):
            # A flip of signed codes waits until somebody needs more than its signed view.
            self.plain[var] = self._keep(var, call)

    # -- views ----------------------------------------------------------------------------------

    def _plain(self, expression: Any) -> relax.Expr:
        """The expression with the values it has in ONNX."""
        if isinstance(expression, relax.Tuple):
            return relax.Tuple([self._plain(field) for field in expression.fields])
        if not isinstance(expression, relax.Var):
            return expression
        if expression not in self.plain:
            if expression in self.signed:
                codes = self.signed[expression]
                dtype = dtype_of(expression)
                flipped = op.bitwise_xor(op.astype(codes, dtype), relax.const(_HALF[dtype], dtype))
                self.plain[expression] = self._helper(flipped, expression)
            elif expression in self.old:
                self.plain[expression] = self._keep(expression, self.old[expression])
            else:
                return expression  # a parameter
        return self.plain[expression]

    def _signed(self, expression: Any) -> relax.Expr:
        """The expression with signed codes in place of unsigned ones."""
        if isinstance(expression, relax.Tuple):
            return relax.Tuple([self._signed(field) for field in expression.fields])
        dtype = dtype_of(expression)
        if isinstance(expression, ir.GenericConst):
            constant: Any = expression
            array = constant.value.numpy().astype(np.int64) - _HALF[dtype]
            return relax.const(array.astype(_SIGNED[dtype]))
        assert isinstance(expression, relax.Var)
        if expression not in self.signed:
            half = relax.const(_HALF[dtype], dtype)
            flipped = op.astype(op.bitwise_xor(self._plain(expression), half), _SIGNED[dtype])
            self.signed[expression] = self._helper(flipped, expression)
        return self.signed[expression]

    def _codes(self, expression: Any) -> relax.Expr:
        """Signed where the expression holds unsigned codes, plain otherwise."""
        return self._signed(expression) if _unsigned(expression) else self._plain(expression)

    def _any_signed(self, call: Any) -> bool:
        return any(
            field in self.signed
            for argument in call.args
            for field in (argument.fields if isinstance(argument, relax.Tuple) else [argument])
        )

    def _flipped(self, cast: Any) -> relax.Expr | None:
        """The signed codes of which the cast spells the conversion by a flipped top bit."""
        flip: Any = self.old.get(cast.args[0])
        if not isinstance(flip, relax.Call) or dtype_of(flip) not in _SIGNED:
            return None
        call: Any = flip
        if call.op.name != "relax.bitwise_xor":
            return None
        source, mask = call.args
        if source not in self.signed:
            return None
        dtype = dtype_of(flip)
        if not isinstance(mask, ir.GenericConst) or str(cast.attrs.dtype) != _SIGNED[dtype]:
            return None
        constant: Any = mask
        return self.signed[source] if np.all(constant.value.numpy() == _HALF[dtype]) else None

    # -- bindings -------------------------------------------------------------------------------

    def _bind(self, value: relax.Expr, var: relax.Var) -> relax.Var:
        return self.builder.bind(value, var.name, var.name)

    def _helper(self, value: relax.Expr, var: relax.Var) -> relax.Var:
        return self.builder.bind(value, self.builder.unique(var.name), var.name)

    def _with(self, call: Any, view: Callable[[Any], relax.Expr]) -> relax.Call:
        arguments = [a if isinstance(a, relax.ShapeExpr) else view(a) for a in call.args]
        return relax.Call(call.op, arguments, call.attrs, call.ty_args)

    def _keep(self, var: relax.Var, call: Any) -> relax.Var:
        return self._bind(self._with(call, self._plain), var)

    def _moved(self, call: Any) -> relax.Expr:
        moved = self._with(call, self._codes)
        if call.op.name != "relax.nn.pad" or call.attrs.pad_mode != "constant":
            return moved
        value = call.attrs.pad_value - _HALF[dtype_of(call.args[0])]
        return op.nn.pad(moved.args[0], list(call.attrs.pad_width), "constant", value)


def _involved(binding: Any) -> bool:
    """Whether unsigned codes go in or come out."""
    arguments = binding.value.args if isinstance(binding.value, relax.Call) else ()
    return any(_unsigned(expression) for expression in (binding.var, *arguments))


def _unsigned(expression: Any) -> bool:
    """Whether an expression is a tensor, or a tuple of tensors, of unsigned codes."""
    if isinstance(expression, relax.Tuple):
        return any(_unsigned(field) for field in expression.fields)
    type_: Any = expression.ty
    while isinstance(type_, relax.TupleType):
        tuple_type: Any = type_
        type_ = tuple_type.fields[0]
    return isinstance(type_, relax.TensorType) and _dtype(type_) in _SIGNED


def _dtype(tensor_type: Any) -> str:
    return str(tensor_type.dtype.dtype)
