"""The loop over an ONNX graph's nodes, and the table of converters.

**How to write a converter.** It is a function ``(node: Node) -> Result | tuple[Result, ...]``,
listed in its file's ``CONVERTERS: dict[str, Converter]`` under the operator's name (``"Conv"``;
``"com.microsoft:QLinearAdd"`` outside the default domain). One result per ONNX output (a single
result where there is one output); outputs the model does not use may be left out at the end. A
result is

- a Relax expression. It may nest calls: they are taken apart into helper bindings. Shape and dtype
  of an expression are known only after ``node.emit(expression)``, which returns a variable;
- a numpy array, when the result is known at import (``Shape``): it becomes a constant that other
  nodes can use as a shape, and is never computed at run time.

``node[i]`` is input i as an expression; ``node.constant(i)`` its array if it is known at import,
else None; ``node.known(i, "the scale")`` the same, refusing values that are not known;
``node.has(i)``, ``node.shape(i)`` (static ints), ``node.dtype(i)``; attributes by type:
``node.int("axis", 1)``, ``node.float``, ``node.string``, ``node.ints``; ``node.opset`` for
operators that changed; ``node.scalar(2.0)`` a constant of input 0's dtype. Forms that are not
implemented: ``raise node.refuse("what")``. Nothing has to be checked that ONNX's own rules
guarantee: type errors that Relax finds are reported at the node.

A node whose inputs are all known is evaluated at import, and its converter is not called, unless
the operator is in ``KEPT``: ``DequantizeLinear`` of a constant stays, because a few-bit weight is
what the rest of the compiler looks for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from .node import Node, Result

Converter = Callable[[Node], "Result | tuple[Result, ...]"]

#: Operators that stay in the module although their inputs are known.
KEPT = frozenset({"DequantizeLinear", "com.microsoft:DequantizeLinear"})
