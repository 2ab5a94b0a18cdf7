"""The table of exporter rules: how each Relax operator is written in ONNX."""

from __future__ import annotations

from collections.abc import Callable

from .graph import Node

#: Adds the ONNX nodes of one call, the last with `Node.done`.
Rule = Callable[[Node], None]

RULES: dict[str, Rule] = {}


def rule(*names: str) -> Callable[[Rule], Rule]:
    """Decorator: the function exports these operators (``"relax.add"``, ...)."""

    def register(function: Rule) -> Rule:
        for name in names:
            RULES[name] = function
        return function

    return register


def direct(operator: str, *names: str) -> None:
    """These Relax operators are the ONNX operator with the same inputs and no attributes."""

    def export(node: Node) -> None:
        node.done(operator, *(node[index] for index in range(len(node.call.args))))

    for name in names:
        RULES[name] = export
