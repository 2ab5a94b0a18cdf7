"""Evaluate the little programs that compute shapes, with symbolic dimensions in them.

What only moves numbers (``Concat``, ``Gather``, ``Slice``) is left to ONNX's reference
implementation, which moves tickets in their place. Arithmetic is done element by element on TVM's
expressions. Whatever is not here, or cannot be decided (is ``T`` equal to 5?), is computed at run
time like any other value.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from tvm import tirx

from ...ops.symbolic import analyzer_for, simplified
from . import fold
from .node import Node
from .values import Known, Sizes, Value, sizes_or_known

#: Larger arrays are data, not shapes.
_LARGEST = 256

#: Operators that move numbers, and which of their inputs hold those (None: all).
_MOVES: dict[str, tuple[int, ...] | None] = {
    "Concat": None,
    "Expand": (0,),
    "Flatten": (0,),
    "Gather": (0,),
    "GatherElements": (0,),
    "GatherND": (0,),
    "Identity": (0,),
    "Reshape": (0,),
    "ScatterElements": (0, 2),
    "ScatterND": (0, 2),
    "Slice": (0,),
    "Split": (0,),
    "Squeeze": (0,),
    "Tile": (0,),
    "Transpose": (0,),
    "Unsqueeze": (0,),
    "Where": (1, 2),
}


def evaluate(node: Node) -> tuple[Known | Sizes, ...] | None:
    """The node's results, or None where they cannot be had at import.

    `node` has `Known` and `Sizes` as inputs, at least one of the latter.
    """
    arrays = [_array(value) for value in node.inputs]
    if any(array is None for array in arrays) or node.operator not in _OPERATORS | _MOVES.keys():
        return None
    if node.operator in _MOVES:
        return _move(node)
    present = [array for array in arrays if array is not None]
    result = _ARITHMETIC[node.operator](node, present)
    if result is None:
        return None
    name = node.proto.output[0]
    if result.dtype == bool:
        return (Known(name, result),)
    return (sizes_or_known(name, np.asarray(result, object), _result_dtype(node)),)


def _array(value: Value | None) -> np.ndarray | None:
    """The value as an array of ints and expressions; None for what is no shape."""
    if isinstance(value, Sizes):
        return value.array
    if isinstance(value, Known) and value.array.size <= _LARGEST:
        return value.array.astype(object) if value.array.dtype.kind in "iu" else value.array
    return None


def _result_dtype(node: Node) -> str:
    if node.operator == "Cast":
        return str(onnx.helper.tensor_dtype_to_np_dtype(node.int("to", 0)))
    return node.dtype(0)


def _move(node: Node) -> tuple[Known | Sizes, ...] | None:
    """Put a ticket in the place of every number, let ONNX move them, and cash them in."""
    places = _MOVES[node.operator]
    moved = range(len(node.inputs)) if places is None else places
    tickets: list[Any] = []
    inputs: list[Value | None] = []
    dtype = ""
    for index, value in enumerate(node.inputs):
        if value is None or index not in moved:
            if isinstance(value, Sizes):
                return None
            inputs.append(value)
            continue
        array = _array(value)
        assert array is not None
        dtype = node.dtype(index)
        numbers = np.arange(len(tickets), len(tickets) + array.size, dtype=dtype)
        tickets.extend(array.reshape(-1))
        inputs.append(Known(node.proto.input[index], numbers.reshape(array.shape)))
    results = fold.evaluate(node.with_inputs(inputs))
    table = np.empty(len(tickets), object)
    table[:] = tickets
    names = node.proto.output
    return tuple(
        sizes_or_known(
            name, np.asarray(table[result.astype("int64")], object).reshape(result.shape), dtype
        )
        for name, result in zip(names, results, strict=True)
    )


# -- arithmetic: (node, inputs as arrays) -> array of objects, of booleans, or None -------------

_Rule = Callable[[Node, list[np.ndarray]], "np.ndarray | None"]


def _elementwise(function: Callable[[Any, Any], Any]) -> _Rule:
    def rule(_node: Node, arrays: list[np.ndarray]) -> np.ndarray:
        return np.asarray(functools.reduce(np.frompyfunc(function, 2, 1), arrays), object)

    return rule


def _decided(comparison: Callable[[Any, Any], Any]) -> _Rule:
    """A comparison, if every element's outcome is the same for all sizes."""

    def rule(_node: Node, arrays: list[np.ndarray]) -> np.ndarray | None:
        outcomes = np.asarray(np.frompyfunc(functools.partial(_decide, comparison), 2, 1)(*arrays))
        if any(outcome is None for outcome in outcomes.reshape(-1)):
            return None
        return outcomes.astype(bool)

    return rule


def _decide(comparison: Callable[[Any, Any], Any], left: Any, right: Any) -> bool | None:
    outcome = comparison(left, right)
    if isinstance(outcome, bool):
        return outcome
    analyzer = analyzer_for([left, right])
    if analyzer.can_prove(outcome):
        return True
    return False if analyzer.can_prove(tirx.Not(outcome)) else None


def _both_ints(function: Callable[[int, int], Any], symbolic: Any) -> Callable[[Any, Any], Any]:
    def run(left: Any, right: Any) -> Any:
        if isinstance(left, int) and isinstance(right, int):
            return function(left, right)
        sides = (tirx.IntImm("int64", s) if isinstance(s, int) else s for s in (left, right))
        return symbolic(*sides)

    return run


def _divide(left: Any, right: Any) -> Any:
    """Sizes are not negative, so that rounding down is ONNX's rounding towards zero."""
    if isinstance(left, int) and isinstance(right, int):
        return int(left / right) if right else 0
    return simplified(tirx.floordiv(left, right))


def _not_negative(rule: _Rule) -> _Rule:
    """Only where all operands provably are at least 0, and divisors at least 1."""

    def guarded(node: Node, arrays: list[np.ndarray]) -> np.ndarray | None:
        for array, least in zip(arrays, (0, 1), strict=False):
            for element in array.reshape(-1):
                if isinstance(element, int):
                    if element < least:
                        return None
                elif not analyzer_for([element]).can_prove(element >= least):
                    return None
        return rule(node, arrays)

    return guarded


def _negate(_node: Node, arrays: list[np.ndarray]) -> np.ndarray:
    return np.asarray(np.frompyfunc(lambda x: x * -1, 1, 1)(arrays[0]), object)


def _cast(node: Node, arrays: list[np.ndarray]) -> np.ndarray | None:
    kind = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(node.int("to", 0))).kind
    if kind == "b":
        return _decided(_both_ints(lambda a, b: a != b, tirx.NE))(
            node, [arrays[0], np.zeros((), object)]
        )
    return arrays[0] if kind in "iu" else None


def _reduction(function: Callable[[Any, Any], Any]) -> _Rule:
    def rule(node: Node, arrays: list[np.ndarray]) -> np.ndarray | None:
        x = arrays[0]
        axes = node.known_ints(1, "the axes") if node.has(1) else node.ints("axes", None)
        if not axes:
            if node.int("noop_with_empty_axes", 0):
                return x
            axes = list(range(x.ndim))
        gone = {node.normalize_axis(axis) for axis in axes}
        for axis in sorted(gone, reverse=True):
            if x.shape[axis] == 0:
                return None
            parts = [x.take(i, axis) for i in range(x.shape[axis])]
            joined = functools.reduce(np.frompyfunc(function, 2, 1), parts)
            x = np.asarray(joined, object)
        if not node.int("keepdims", 1):
            return x
        return x.reshape([1 if axis in gone else e for axis, e in enumerate(arrays[0].shape)])

    return rule


_minimum = _both_ints(min, tirx.min)
_maximum = _both_ints(max, tirx.max)

_ARITHMETIC: dict[str, _Rule] = {
    "Add": _elementwise(lambda a, b: a + b),
    "Sub": _elementwise(lambda a, b: a - b),
    "Mul": _elementwise(lambda a, b: a * b),
    "Div": _not_negative(_elementwise(_divide)),
    "Mod": _not_negative(_elementwise(_both_ints(lambda a, b: a % b, tirx.floormod))),
    "Min": _elementwise(_minimum),
    "Max": _elementwise(_maximum),
    "Sum": _elementwise(lambda a, b: a + b),
    "Neg": _negate,
    "Cast": _cast,
    "Equal": _decided(_both_ints(lambda a, b: a == b, tirx.EQ)),
    "Less": _decided(_both_ints(lambda a, b: a < b, tirx.LT)),
    "LessOrEqual": _decided(_both_ints(lambda a, b: a <= b, tirx.LE)),
    "Greater": _decided(_both_ints(lambda a, b: a > b, tirx.GT)),
    "GreaterOrEqual": _decided(_both_ints(lambda a, b: a >= b, tirx.GE)),
    "ReduceProd": _reduction(lambda a, b: a * b),
    "ReduceSum": _reduction(lambda a, b: a + b),
    "ReduceMin": _reduction(_minimum),
    "ReduceMax": _reduction(_maximum),
}
_OPERATORS = _ARITHMETIC.keys()
