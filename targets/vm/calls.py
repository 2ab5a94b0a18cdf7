"""A module on its way to kernels: the functions that its new bindings call, each there once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tvm import ir, relax

from ...ops.symbolic import Extent
from ...passes.rewrite import Rewriter

#: TVM's expressions and types are built by calls that its annotations do not cover.
_relax: Any = relax


class Calls:
    """The functions that kernels were made of.

    Attributes:
        rewriter: the module being rewritten.
        notes: which kernel each layer got.
        functions: by what makes them equal, their variables and themselves.
    """

    def __init__(self, rewriter: Rewriter) -> None:
        self.rewriter = rewriter
        self.notes: dict[str, str] = {}
        self.functions: dict[Any, tuple[ir.GlobalVar, Any]] = {}
        self._names = {var.name_hint for var in rewriter.module.functions}

    def unique(self, title: str) -> str:
        """The title, with a number where a function of the module has it."""
        name, count = title, 1
        while name in self._names:
            count += 1
            name = f"{title}_{count}"
        self._names.add(name)
        return name

    def finish(self) -> ir.IRModule:
        """The module with its functions, and the notes as ``main``'s attribute ``kernels``."""
        self.rewriter.attributes["kernels"] = dict(self.notes)
        module = self.rewriter.finish()
        for variable, function in self.rewriter.module.functions_items():
            if variable.name_hint != "main":
                module.update_func(variable, function)
        for variable, function in self.functions.values():
            module.update_func(variable, function)
        return module


def tensor_type(shape: Sequence[Extent], dtype: str) -> Any:
    """The type of a tensor."""
    return _relax.TensorType(tuple(shape), dtype)
