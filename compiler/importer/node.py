"""What a converter sees of an ONNX node, and how it emits Relax bindings.

A converter should read like the operator's definition. So everything tedious lives here: typed
access to attributes and inputs with errors that name the node, the difference between values that
are known at import and values that exist only at run time, unique names, and the rule that calls
are never nested (nested calls are taken apart into helper bindings).
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable
from typing import Any, TypeAlias, TypeVar

import numpy as np
import onnx
from tvm import relax

from ...errors import FewbitsError
from .limits import RUNTIME_DTYPES, check_extents

T = TypeVar("T")

#: TVM has no type stubs: a class taken from here does not narrow what pyright knows.
_types: Any = relax


@dataclasses.dataclass(eq=False)
class Known:
    """A value that is known at import: an initializer, or computed from such.

    `name` is the ONNX value's name. The array may have a dtype that Relax lacks (int4, float8):
    it becomes a Relax constant only where a converter asks for one.
    """

    name: str
    array: np.ndarray
    _expr: relax.Expr | None = None

    @property
    def expr(self) -> relax.Expr:
        """The value as a Relax constant (always the same object)."""
        if self._expr is None:
            self._expr = constant(self.array)
        return self._expr

    @functools.cached_property
    def is_finite(self) -> bool:
        """Whether no element is NaN or infinite."""
        if self.array.dtype.kind in "iub":
            return True
        return bool(np.isfinite(self.array.astype("float32", copy=False)).all())


def constant(array: np.ndarray) -> relax.Expr:
    """A Relax constant of exactly the array's dtype (`relax.const` alone narrows int64)."""
    contiguous = np.ascontiguousarray(array).reshape(array.shape)
    return relax.const(contiguous, str(array.dtype))


Value: TypeAlias = "relax.Var | Known"
#: What a converter returns: one result per ONNX output.
Result: TypeAlias = "relax.Expr | np.ndarray"


class Builder:
    """The bindings of the one dataflow block and the notes for the user, as they grow."""

    def __init__(self, taken: Iterable[str]) -> None:
        self.bindings: list[relax.VarBinding] = []
        self.notes: list[str] = []
        self._normalizer = relax.BlockBuilder()
        self._taken = set(taken)
        self._next: dict[str, int] = {}

    def unique(self, name: str) -> str:
        """`name` if it is free, else ``name:1``, ``name:2``, ...; taken from now on."""
        candidate, count = name, self._next.get(name, 0)
        while candidate in self._taken:
            count += 1
            candidate = f"{name}:{count}"
        self._next[name] = count
        self._taken.add(candidate)
        return candidate

    def bind(self, expression: relax.Expr, name: str, owner: str) -> relax.Var:
        """Bind `expression` to a new variable called `name` (exactly).

        Calls inside the expression get bindings of their own, called after `owner`.
        """
        normal = self._normalizer.normalize(self._flat(expression, owner))
        check_size(normal.ty, owner)
        var = relax.DataflowVar(name, normal.ty)
        self.bindings.append(relax.VarBinding(var, normal))
        return var

    def atom(self, expression: relax.Expr, owner: str) -> relax.Expr:
        """`expression` if it needs no binding, else the variable of a new helper binding."""
        if isinstance(expression, relax.Tuple):
            return relax.Tuple([self.atom(field, owner) for field in expression.fields])
        if isinstance(expression, (relax.Call, relax.TupleGetItem)):
            inner = self._flat(expression, owner)
            return self.bind(inner, self.unique(owner), owner)
        return expression

    def _flat(self, expression: relax.Expr, owner: str) -> relax.Expr:
        if isinstance(expression, relax.Call):
            arguments = [self.atom(argument, owner) for argument in expression.args]
            return relax.Call(expression.op, arguments, expression.attrs, expression.ty_args)
        if isinstance(expression, relax.TupleGetItem):
            return relax.TupleGetItem(self.atom(expression.tuple_value, owner), expression.index)
        return expression


class Node:
    """One node during conversion.

    Attributes:
        name: the node's name as the user knows it (its first output's where it has none).
        operator: the operator, ``"Conv"`` or ``"com.microsoft:QLinearAdd"``.
        opset: version of the operator's domain.
        inputs: its inputs in order, None where an optional one is left out.
        output_count: how many results the model uses (trailing unused ones are not counted).
        result_names: names reserved for the results' variables; the first is `name` where free.
    """

    def __init__(
        self,
        proto: onnx.NodeProto,
        name: str,
        opset: int,
        inputs: list[Value | None],
        output_count: int,
        builder: Builder,
    ) -> None:
        self.proto = proto
        self.name = name
        self.operator = operator_key(proto)
        self.opset = opset
        self.inputs = inputs
        self.output_count = output_count
        self.builder = builder
        self.result_names = [builder.unique(name) for _ in range(output_count)]
        self._attributes = {attribute.name: attribute for attribute in proto.attribute}

    # -- errors ---------------------------------------------------------------------------------

    @property
    def where(self) -> str:
        """The node as errors name it."""
        return f"node {self.name!r} ({self.operator})"

    def error(self, code: str, message: str, hint: str | None = None) -> FewbitsError:
        """A FewbitsError at this node, to be raised by the caller."""
        return FewbitsError(code, message, where=self.where, hint=hint)

    def refuse(self, what: str, hint: str | None = None) -> FewbitsError:
        """The error for a form of the operator that is not implemented, to be raised."""
        return self.error("unsupported-form", f"{self.operator}: {what} is not supported", hint)

    def note(self, text: str) -> None:
        """Tell the user of a decision made for this node."""
        self.builder.notes.append(f"{self.where}: {text}")

    # -- inputs ---------------------------------------------------------------------------------

    def has(self, index: int) -> bool:
        """Whether input `index` is there."""
        return index < len(self.inputs) and self.inputs[index] is not None

    def value(self, index: int) -> Value:
        """Input `index`; an error where the model leaves it out."""
        value = self.inputs[index] if index < len(self.inputs) else None
        if value is None:
            raise self.error("invalid-node", f"{self.operator} needs input {index}")
        return value

    def __getitem__(self, index: int) -> relax.Expr:
        """Input `index` as an expression: a variable or a constant."""
        return self.as_expr(self.value(index))

    def as_expr(self, value: Value) -> relax.Expr:
        """A value as an expression; an error where Relax has no such dtype."""
        if isinstance(value, Known):
            if str(value.array.dtype) not in RUNTIME_DTYPES:
                raise self.error(
                    "unsupported-dtype",
                    f"constant {value.name!r} has dtype {value.array.dtype}",
                )
            return value.expr
        return value

    def expressions(self) -> list[relax.Expr]:
        """All inputs as expressions, for variadic operators."""
        return [self[index] for index in range(len(self.inputs))]

    def shape(self, index: int) -> tuple[int, ...]:
        """Static shape of input `index`."""
        return dtype_and_shape(self.value(index))[1]

    def rank(self, index: int = 0) -> int:
        """Number of axes of input `index`."""
        return len(self.shape(index))

    def dtype(self, index: int = 0) -> str:
        """dtype of input `index`, as numpy spells it."""
        return dtype_and_shape(self.value(index))[0]

    def constant(self, index: int) -> np.ndarray | None:
        """Input `index` if it is known at import, else None."""
        value = self.value(index)
        return value.array if isinstance(value, Known) else None

    def known(self, index: int, meaning: str) -> np.ndarray:
        """Input `index`, which must be known at import; `meaning` is what errors call it."""
        value = self.value(index)
        if not isinstance(value, Known):
            raise self.error(
                "dynamic-argument",
                f"{self.operator}: {meaning} (input {self.proto.input[index]!r}) "
                "is computed at run time",
                "only constants, and what follows from static shapes, can be used here",
            )
        return value.array

    def known_ints(self, index: int, meaning: str) -> list[int]:
        """Like `known`, as a flat list of ints."""
        array = self.known(index, meaning)
        if array.dtype.kind not in "iu":
            raise self.error("invalid-node", f"{self.operator}: {meaning} must be integers")
        return [int(item) for item in array.reshape(-1)]

    # -- attributes -----------------------------------------------------------------------------

    def _attribute(self, name: str, kind: int, default: T) -> Any | T:
        attribute = self._attributes.get(name)
        if attribute is None:
            return default
        if attribute.type != kind:
            raise self.error("invalid-node", f"attribute {name!r} has the wrong type")
        return onnx.helper.get_attribute_value(attribute)

    def has_attribute(self, name: str) -> bool:
        """Whether the node gives the attribute."""
        return name in self._attributes

    def int(self, name: str, default: int) -> int:
        """An integer attribute."""
        return int(self._attribute(name, onnx.AttributeProto.INT, default))

    def float(self, name: str, default: float) -> float:
        """A float attribute."""
        return float(self._attribute(name, onnx.AttributeProto.FLOAT, default))

    def string(self, name: str, default: str) -> str:
        """A string attribute."""
        value = self._attribute(name, onnx.AttributeProto.STRING, default)
        return value.decode("utf-8", "replace") if isinstance(value, bytes) else value

    def ints(self, name: str, default: Iterable[int] | None = ()) -> list[int] | None:
        """A list of integers, or None where the default is None and it is not given."""
        value = self._attribute(name, onnx.AttributeProto.INTS, default)
        return None if value is None else [int(item) for item in value]

    def axis(self, name: str = "axis", default: int = 0, rank: int | None = None) -> int:
        """An axis attribute, counted from the front."""
        return self.normalize_axis(self.int(name, default), rank)

    def normalize_axis(self, axis: int, rank: int | None = None) -> int:
        """`axis` counted from the front; an error when out of range."""
        rank = self.rank() if rank is None else rank
        if not -rank <= axis < rank:
            raise self.error("invalid-node", f"axis {axis} is out of range for rank {rank}")
        return axis % rank

    # -- emitting -------------------------------------------------------------------------------

    def emit(self, expression: relax.Expr) -> relax.Var:
        """Bind an intermediate result, to use it several times or to see its shape."""
        if isinstance(expression, relax.Var):
            return expression
        return self.builder.bind(expression, self.builder.unique(self.name), self.name)

    def scalar(self, value: float, dtype: str | None = None) -> relax.Expr:
        """A constant of shape (), by default of input 0's dtype."""
        return relax.const(value, dtype or self.dtype())


def operator_key(proto: onnx.NodeProto) -> str:
    """``"Conv"`` for the default domain, ``"domain:Operator"`` otherwise."""
    return proto.op_type if proto.domain in ("", "ai.onnx") else f"{proto.domain}:{proto.op_type}"


def dtype_and_shape(value: Value) -> tuple[str, tuple[int, ...]]:
    """dtype and static shape of a value."""
    if isinstance(value, Known):
        return str(value.array.dtype), value.array.shape
    return dtype_of(value), static_shape(value)


def static_shape(expression: relax.Expr) -> tuple[int, ...]:
    """The shape of a normalized expression."""
    type_: Any = expression.ty
    return tuple(int(extent) for extent in type_.shape.values)


def dtype_of(expression: relax.Expr) -> str:
    """The dtype of a normalized tensor expression."""
    type_: Any = expression.ty
    return str(type_.dtype.dtype)


def check_size(type_: Any, owner: str) -> None:
    """Refuse tensors of no or absurd size before anything allocates them."""
    if isinstance(type_, _types.TupleType):
        for field in type_.fields:
            check_size(field, owner)
    elif isinstance(type_, _types.TensorType):
        if not isinstance(type_.shape, _types.ShapeExpr):
            raise FewbitsError(
                "dynamic-shape", "the result's shape depends on run-time values", where=owner
            )
        shape = [int(extent) for extent in type_.shape.values]
        check_extents(shape, str(type_.dtype.dtype), owner)
