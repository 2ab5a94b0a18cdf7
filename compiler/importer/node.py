"""What a converter sees of an ONNX node, and how it emits Relax bindings.

A converter should read like the operator's definition. So everything tedious lives here: typed
access to attributes and inputs with errors that name the node, the difference between values that
are known at import and values that exist only at run time, unique names, and the rule that calls
are never nested (nested calls are taken apart into helper bindings).
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias, TypeVar

import numpy as np
import onnx
from tvm import relax

from ...errors import FewbitsError
from ...ops.symbolic import Extent, spell_shape
from .limits import RUNTIME_DTYPES
from .values import Known, Sizes, Value, bind_hint, check_size, dtype_and_shape, shape_of

T = TypeVar("T")

#: What a converter returns: one result per ONNX output.
Result: TypeAlias = "relax.Expr | np.ndarray | Known | Sizes"


class Builder:
    """The bindings of the one dataflow block and the notes for the user, as they grow."""

    def __init__(self, taken: Iterable[str]) -> None:
        self.bindings: list[relax.VarBinding] = []
        self.notes: list[str] = []
        #: The largest size that a symbolic dimension may have, where the model implies one.
        self.largest: dict[Any, int] = {}
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

    def with_inputs(self, inputs: list[Value | None]) -> Node:
        """The same node on other values."""
        other = copy.copy(self)
        other.inputs = inputs
        return other

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
        if isinstance(value, Sizes):
            return self.emit(value.expr)
        return value

    def expressions(self) -> list[relax.Expr]:
        """All inputs as expressions, for variadic operators."""
        return [self[index] for index in range(len(self.inputs))]

    def extents(self, index: int) -> tuple[Extent, ...]:
        """Shape of input `index`: ints, and expressions where it is symbolic."""
        return dtype_and_shape(self.value(index))[1]

    def shape(self, index: int) -> Sequence[int]:
        """Shape of input `index`; to look at a symbolic dimension in it is an error."""
        return shape_of(self.extents(index), self.where)

    def rank(self, index: int = 0) -> int:
        """Number of axes of input `index`."""
        return len(self.extents(index))

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
        if isinstance(value, Sizes):
            raise self.error(
                "symbolic-dimension",
                f"{self.operator}: {meaning} is {spell_shape(value.array.reshape(-1))}, "
                "but must be known at import",
                bind_hint(value.array.reshape(-1)),
            )
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

    def sizes(self, index: int, meaning: str) -> list[Extent]:
        """Like `known_ints`, but what symbolic dimensions imply is known enough."""
        value = self.value(index)
        if isinstance(value, Sizes):
            return list(value.array.reshape(-1))
        return list(self.known_ints(index, meaning))

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
