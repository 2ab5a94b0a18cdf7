"""Compute equal things once: same operator, same arguments, constants equal by content."""

from __future__ import annotations

import dataclasses
import hashlib
from typing import Any, ClassVar

from tvm import ir, relax

from ...ops.symbolic import spell_shape
from ..base import Pass, PassContext, register_pass
from ..rewrite import as_array, operator_of
from .graph import Graph


@register_pass
@dataclasses.dataclass(frozen=True)
class MergeEqual(Pass):
    """Merge equal computations."""

    name: ClassVar[str] = "merge-equal"

    def apply(self, module: ir.IRModule, context: PassContext) -> ir.IRModule:
        """The module with every distinct computation once; the same object if none was double."""
        return _Merger(module).run()


class _Merger:
    def __init__(self, module: ir.IRModule) -> None:
        self.graph = Graph(module)
        self.seen: dict[str, relax.Expr] = {}
        self.digests: dict[relax.Expr, str] = {}

    def run(self) -> ir.IRModule:
        graph = self.graph
        changed = False
        for var, value in graph.bindings:
            key = self._key(graph.map(value))
            earlier = self.seen.get(key)
            if earlier is None or (var in graph.outputs):
                # An output keeps a variable of its own, but later equals may use it.
                self.seen.setdefault(key, graph.keep(var, value))
            else:
                graph.replace(var, earlier)
                changed = True
        return graph.finish() if changed else graph.module

    def _key(self, expression: Any) -> str:
        """Equal for two expressions over new variables exactly when they compute the same."""
        if isinstance(expression, ir.GenericConst):
            if expression not in self.digests:
                array = as_array(expression)
                content = hashlib.sha256(array.tobytes()).hexdigest()
                self.digests[expression] = f"{array.dtype}{array.shape}{content}"
            return self.digests[expression]
        if isinstance(expression, relax.Call):
            arguments = ",".join(self._key(argument) for argument in expression.args)
            attrs = "" if expression.attrs is None else ir.save_json(expression.attrs)
            return f"{operator_of(expression)}({arguments}){attrs}"
        if isinstance(expression, relax.Tuple):
            return "[" + ",".join(self._key(field) for field in expression.fields) + "]"
        if isinstance(expression, relax.TupleGetItem):
            return f"{self._key(expression.tuple_value)}[{expression.index}]"
        if isinstance(expression, relax.Var):
            return f"%{hash(expression)}"  # identity: all variables stay alive
        if isinstance(expression, relax.ShapeExpr):
            return spell_shape(expression.values)
        return str(expression)
