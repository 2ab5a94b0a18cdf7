"""What an exporter rule sees of a Relax call, and how it adds ONNX nodes.

A rule should read like the operator's definition in ONNX. So names, constants, and the difference
between what Relax knows and what ONNX must be told live here.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from typing import Any, Protocol, TypeAlias

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from tvm import ir, relax

from ...ops.symbolic import Extent, extents_of

#: How an ONNX value is referred to: its name, or the names of a tuple's fields.
Names: TypeAlias = "str | tuple[str, ...]"


class Unsupported(Exception):
    """A call that has no ONNX form; the message says why. Collected into one error."""


class Graph:
    """The ONNX graph as it grows: nodes, initializers, and which names are taken.

    Args:
        opset: version of the default operator set the model is written for.
    """

    def __init__(self, opset: int) -> None:
        self.opset = opset
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self._constants: dict[tuple[str, tuple[int, ...], bytes], str] = {}
        self._value_names: set[str] = set()
        self._node_names: set[str] = set()

    def reserve(self, names: Iterable[str]) -> None:
        """Take value names that are given from outside (inputs and outputs)."""
        self._value_names.update(names)

    def value_name(self, wanted: str) -> str:
        """`wanted`, or the first free ``wanted:1``, ``wanted:2``, ... for a new ONNX value."""
        return _unique(wanted, self._value_names)

    def constant(self, array: np.ndarray, wanted: str) -> str:
        """The name of an initializer with this value; equal ones are stored once."""
        array = np.asarray(array)
        key = (str(array.dtype), array.shape, array.tobytes())
        if key not in self._constants:
            self._constants[key] = self.value_name(wanted)
            self.initializers.append(numpy_helper.from_array(array, self._constants[key]))
        return self._constants[key]

    def raw(self, number: int, shape: tuple[int, ...], data: bytes, wanted: str) -> str:
        """The name of an initializer of any ONNX element type, given as its ``raw_data``."""
        key = (f"onnx:{number}", shape, data)
        if key not in self._constants:
            self._constants[key] = self.value_name(wanted)
            tensor = TensorProto(
                name=self._constants[key], data_type=number, dims=shape, raw_data=data
            )
            self.initializers.append(tensor)
        return self._constants[key]

    def add(
        self,
        operator: str,
        inputs: Iterable[str],
        outputs: Iterable[str],
        wanted: str,
        attributes: Mapping[str, Any],
    ) -> None:
        """Append a node. Attributes that are None are left out."""
        given = {key: value for key, value in attributes.items() if value is not None}
        name = _unique(wanted, self._node_names)
        self.nodes.append(helper.make_node(operator, list(inputs), list(outputs), name, **given))


class SizeValues(Protocol):
    """Where sizes become ONNX values (`sizes.Sizes`)."""

    def vector(self, extents: Sequence[Extent], label: str) -> str: ...  # noqa: D102
    def scalar(self, extent: Extent, label: str) -> str: ...  # noqa: D102


class Node:
    """One Relax call during export.

    Attributes:
        name: the call's variable, which names the ONNX node.
        call: the Relax call.
        attrs: its attributes.
        operator: the Relax operator's name.
        outputs: ONNX names of its result, one per tuple field.
    """

    def __init__(
        self,
        graph: Graph,
        name: str,
        call: relax.Call,
        outputs: tuple[str, ...],
        lookup: Callable[[relax.Expr, str], Names],
        sizes: SizeValues,
    ) -> None:
        self.graph = graph
        self._sizes = sizes
        self.name = name
        self.call: Any = call  # TVM gives no types for what depends on the operator
        self.attrs: Any = self.call.attrs
        self.operator: str = self.call.op.name
        self.outputs = outputs
        self._lookup = lookup

    # -- arguments ------------------------------------------------------------------------------

    def __getitem__(self, index: int) -> str:
        """The ONNX name of argument `index`, a tensor."""
        value = self._value(index)
        if not isinstance(value, str):
            raise Unsupported(f"argument {index} is not a tensor")
        return value

    def fields(self, index: int = 0) -> tuple[str, ...]:
        """The ONNX names of argument `index`, a tuple of tensors."""
        value = self._value(index)
        return (value,) if isinstance(value, str) else value

    def _value(self, index: int) -> Names:
        arguments = self.call.op.arguments
        label = arguments[index].name if index < len(arguments) else f"argument{index}"
        return self._lookup(self.call.args[index], f"{self.name}.{label}")

    def lookup(self, expression: relax.Expr, label: str) -> Names:
        """The ONNX name of an expression that is not an argument of the call."""
        return self._lookup(expression, f"{self.name}.{label}")

    def array(self, index: int) -> np.ndarray | None:
        """Argument `index` as an array if it is a constant, else None."""
        return constant_array(self.call.args[index])

    def elements(self, index: int) -> list[Extent]:
        """Argument `index`, a tuple of integers or a shape; some may be symbolic."""
        argument = self.call.args[index]
        values = argument.values if isinstance(argument, relax.ShapeExpr) else argument.fields
        return [getattr(value, "value", value) for value in values]

    def integers(self, index: int) -> list[int]:
        """Argument `index`, a tuple of integers or a shape."""
        return integers(self.elements(index))

    def number(self, index: int) -> float:
        """Argument `index`, a number."""
        return self.call.args[index].value

    def shape(self, index: int = 0) -> tuple[int, ...]:
        """Static shape of argument `index`."""
        return static_shape(self.call.args[index].ty)

    def rank(self, index: int = 0) -> int:
        """Number of axes of argument `index`."""
        return int(self.call.args[index].ty.ndim)

    def dtype(self, index: int = 0) -> str:
        """dtype of argument `index`."""
        return dtype_of(self.call.args[index].ty)

    def axis(self, name: str = "axis", index: int = 0) -> int:
        """The attribute `name`, an axis of argument `index`, counted from the front."""
        return int(getattr(self.attrs, name)) % max(1, self.rank(index))

    def extents(self, index: int = 0) -> tuple[Extent, ...]:
        """Shape of argument `index`: ints, and expressions where it is symbolic."""
        return known_extents(self.call.args[index])

    @property
    def result_extents(self) -> tuple[Extent, ...]:
        """Shape of the result: ints, and expressions where it is symbolic."""
        return known_extents(self.call)

    @property
    def result_dtype(self) -> str:
        """dtype of the result."""
        return dtype_of(self.call.ty)

    def require(self, opset: int, what: str) -> None:
        """Refuse when the model is written for an older operator set."""
        if self.graph.opset < opset:
            raise Unsupported(f"{what} needs opset {opset}")

    def require_layout(self, **expected: str) -> None:
        """Refuse when a layout attribute is not the one ONNX has."""
        for name, layout in expected.items():
            if getattr(self.attrs, name) != layout:
                raise Unsupported(f"{name} {getattr(self.attrs, name)}, ONNX has {layout} only")

    # -- results --------------------------------------------------------------------------------

    def constant(self, value: Any, label: str, dtype: str | None = None) -> str:
        """An initializer, by default of argument 0's dtype."""
        array = np.asarray(value, dtype or self.dtype())
        return self.graph.constant(array, f"{self.name}.{label}")

    def raw(self, number: int, shape: tuple[int, ...], data: bytes, label: str) -> str:
        """An initializer of any ONNX element type, given as its ``raw_data``."""
        return self.graph.raw(number, shape, data, f"{self.name}.{label}")

    def int64(self, values: Iterable[int], label: str) -> str:
        """An initializer with a list of integers, as ONNX takes shapes, axes and pads."""
        return self.constant(list(values), label, "int64")

    def sizes(self, extents: Sequence[Extent], label: str) -> str:
        """Integers as `int64` gives them, of which some may depend on symbolic dimensions."""
        return self._sizes.vector(extents, f"{self.name}.{label}")

    def size(self, extent: Extent, label: str) -> str:
        """One integer as an int64 scalar; it may depend on symbolic dimensions."""
        return self._sizes.scalar(extent, f"{self.name}.{label}")

    def step(self, operator: str, *inputs: str, **attributes: Any) -> str:
        """A helper node; returns its output's name."""
        label = f"{self.name}/{operator}"
        output = self.graph.value_name(label)
        self.graph.add(operator, inputs, [output], label, attributes)
        return output

    def done(self, operator: str, *inputs: str, **attributes: Any) -> None:
        """The node whose outputs are the call's results."""
        self.graph.add(operator, inputs, self.outputs, self.name, attributes)


def constant_array(expression: Any) -> np.ndarray | None:
    """The value of a Relax constant, None for other expressions."""
    constant: Any = expression if isinstance(expression, ir.GenericConst) else None
    return None if constant is None else constant.value.numpy()


def tuple_fields(type_: Any) -> list[Any] | None:
    """The fields of a tuple type, None for other types."""
    fields: Any = type_ if isinstance(type_, relax.TupleType) else None
    return None if fields is None else list(fields.fields)


def integers(values: Iterable[Any]) -> list[int]:
    """Integer literals as ints; refuses symbolic ones."""
    result = []
    for value in values:
        literal = getattr(value, "value", value)
        if not isinstance(literal, int):
            raise Unsupported(f"{value} is not a number; bind the model's symbolic dimensions")
        result.append(literal)
    return result


def static_shape(type_: Any) -> tuple[int, ...]:
    """The shape of a tensor type; refuses unknown and symbolic shapes."""
    if not isinstance(getattr(type_, "shape", None), relax.ShapeExpr):
        raise Unsupported("a shape that is not known")
    return tuple(integers(type_.shape.values))


def known_extents(expression: Any) -> tuple[Extent, ...]:
    """The shape of a tensor expression, symbolic where it is; refuses unknown shapes."""
    if not isinstance(getattr(expression.ty, "shape", None), relax.ShapeExpr):
        raise Unsupported("a shape that is not known")
    return extents_of(expression)


def dtype_of(type_: Any) -> str:
    """The dtype of a tensor type."""
    return str(type_.dtype.dtype)


def onnx_type(dtype: str) -> int:
    """ONNX's number for a dtype."""
    return helper.np_dtype_to_tensor_dtype(np.dtype(dtype if dtype != "bool" else np.bool_))


def layer_name(name: str, names: Container[str]) -> str:
    """The layer a variable belongs to: a layer's helpers are ``layer:1``, ``layer:2``, ..."""
    stem, colon, suffix = name.rpartition(":")
    return stem if colon and suffix.isdigit() and stem in names else name


def _unique(wanted: str, taken: set[str]) -> str:
    candidate, count = wanted, 0
    while candidate in taken:
        count += 1
        candidate = f"{wanted}:{count}"
    taken.add(candidate)
    return candidate
