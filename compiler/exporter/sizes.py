"""Sizes that are known only at run time, as ONNX values: read from the inputs' shapes, computed.

A module may leave dimensions open (`ops/symbolic.py`). Wherever it needs such a size as a number,
in the shape of a reshape or the end of a slice, the graph asks an input for it with ``Shape`` and
computes the rest with integer arithmetic. Each size is computed once.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from onnx import TensorProto
from tvm import ir, tirx

from ...ops.symbolic import extents_of, is_symbol, simplified, spell
from .graph import Graph, Unsupported

_prim: Any = tirx

#: Integers in ONNX: ``Div`` truncates and ``Mod`` takes the divisor's sign.
_OPERATORS: dict[Any, str] = {
    _prim.Add: "Add", _prim.Sub: "Sub", _prim.Mul: "Mul", _prim.Min: "Min", _prim.Max: "Max",
    _prim.FloorMod: "Mod", _prim.Div: "Div", _prim.EQ: "Equal", _prim.LT: "Less",
    _prim.LE: "LessOrEqual", _prim.GT: "Greater", _prim.GE: "GreaterOrEqual", _prim.And: "And",
    _prim.Or: "Or",
}  # fmt: skip


class Sizes:
    """The sizes of one function as values of its graph.

    Args:
        graph: where nodes are added.
        parameters: the function's inputs, whose shapes say how large symbolic dimensions are.
    """

    def __init__(self, graph: Graph, parameters: Iterable[Any]) -> None:
        self.graph = graph
        self._places: dict[Any, tuple[str, int]] = {}
        self._known: dict[str, str] = {}
        for parameter in parameters:
            for axis, extent in enumerate(extents_of(parameter)):
                if is_symbol(extent):
                    self._places.setdefault(extent, (parameter.name, axis))

    def vector(self, extents: Sequence[Any], label: str) -> str:
        """The name of an int64 vector with these sizes; `label` names it where it is constant."""
        sizes = [simplified(extent) for extent in extents]
        parts: list[str] = []
        run: list[int] = []
        for position, size in enumerate(sizes):
            if isinstance(size, int):
                run.append(size)
            if run and (not isinstance(size, int) or position == len(sizes) - 1):
                parts.append(self.graph.constant(np.array(run, np.int64), label))
                run = []
            if not isinstance(size, int):
                parts.append(self._value(size))
        if not sizes:
            return self.graph.constant(np.zeros(0, np.int64), label)
        return parts[0] if len(parts) == 1 else self._node(label, "Concat", parts, axis=0)

    def scalar(self, extent: Any, label: str) -> str:
        """The name of an int64 scalar with this size."""
        size = simplified(extent)
        if isinstance(size, int):
            return self.graph.constant(np.array(size, np.int64), label)
        empty = self.graph.constant(np.zeros(0, np.int64), "scalar")
        return self._node(label, "Reshape", [self._value(size), empty])

    def _value(self, size: Any) -> str:
        """A size as int64 [1]."""
        size = getattr(size, "value", size) if isinstance(size, _prim.IntImm) else size
        if isinstance(size, int):
            return self.graph.constant(np.array([size], np.int64), f"size {size}")
        key = str(size)  # names of dimensions are unique in a module
        if key not in self._known:
            self._known[key] = self._computed(size)
        return self._known[key]

    def _computed(self, size: Any) -> str:
        name = f"size {spell(size)}"
        if is_symbol(size):
            if size not in self._places:
                raise Unsupported(f"dimension {size.name!r}, which no input has")
            source, axis = self._places[size]
            shape = self._known.get(f"shape {source}")
            if shape is None:
                shape = self._node(f"shape {source}", "Shape", [source])
                self._known[f"shape {source}"] = shape
            index = self.graph.constant(np.array([axis], np.int64), f"axis {axis}")
            return self._node(name, "Gather", [shape, index], axis=0)
        if isinstance(size, _prim.Cast):
            to = TensorProto.BOOL if str(size.ty.dtype) == "bool" else TensorProto.INT64
            return self._node(name, "Cast", [self._value(size.value)], to=to)
        if isinstance(size, _prim.Not):
            return self._node(name, "Not", [self._value(size.a)])
        if isinstance(size, _prim.Select):
            fields = (size.condition, size.true_value, size.false_value)
            return self._node(name, "Where", [self._value(field) for field in fields])
        if isinstance(size, ir.Call) and str(size.op.name).endswith("if_then_else"):
            return self._node(name, "Where", [self._value(field) for field in size.args])
        sides = [self._value(size.a), self._value(size.b)] if hasattr(size, "a") else []
        if isinstance(size, _prim.NE):
            return self._node(name, "Not", [self._node(name, "Equal", sides)])
        if isinstance(size, _prim.FloorDiv):
            rest = self._node(name, "Mod", sides)
            return self._node(name, "Div", [self._node(name, "Sub", [sides[0], rest]), sides[1]])
        if type(size) not in _OPERATORS:
            raise Unsupported(f"the size {spell(size)}")
        return self._node(name, _OPERATORS[type(size)], sides)

    def _node(self, label: str, operator: str, inputs: list[str], **attributes: Any) -> str:
        output = self.graph.value_name(label)
        self.graph.add(operator, inputs, [output], label, attributes)
        return output
