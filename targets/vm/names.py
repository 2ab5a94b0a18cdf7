"""Names that any compiler takes: layers and dimensions are called what their authors liked.

Variables of the graph become buffers of loops, and those are printed as parameters of C functions.
"""

from __future__ import annotations

import dataclasses
import keyword
import re
from typing import Any

from tvm import ir, relax, tirx

from ...ops.symbolic import is_symbol
from ...passes.rewrite import Rewriter, assemble

_PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
#: Words of CUDA C++ that people call dimensions, and that Python has not reserved.
_RESERVED = frozenset(
    {
        "auto", "bool", "case", "char", "const", "default", "delete", "do", "double", "enum",
        "explicit", "export", "extern", "float", "friend", "goto", "half", "inline", "int",
        "long", "main", "mutable", "namespace", "new", "operator", "private", "protected",
        "public", "register", "short", "signed", "sizeof", "static", "struct", "switch",
        "template", "this", "throw", "typedef", "typename", "union", "unsigned", "using",
        "virtual", "void", "volatile",
    }
)  # fmt: skip


@dataclasses.dataclass(frozen=True, eq=False)
class Plain:
    """A module with plain names.

    Attributes:
        module: its variables are ``x0``, ``v0`` ...
        layers: what the variables were called.
        dimensions: what renamed dimensions were called.
    """

    module: ir.IRModule
    layers: dict[str, str]
    dimensions: dict[str, str]


def plain_names(module: ir.IRModule) -> Plain:
    """The module with names that are identifiers of C and of Python."""
    module, called = _plain_dimensions(module)
    rewriter = Rewriter(module)
    parameters = [
        relax.Var(f"x{place}", parameter.ty) for place, parameter in enumerate(rewriter.parameters)
    ]
    renamed = Rewriter(module, parameters)
    for old, new in zip(rewriter.parameters, parameters, strict=True):
        renamed.replace(old, new)
    bindings: list[tuple[relax.Var, relax.Expr]] = []
    layers: dict[str, str] = {}
    for place, (var, value) in enumerate(renamed.bindings):
        fresh = relax.DataflowVar(f"v{place}", var.ty)
        layers[fresh.name] = var.name
        bindings.append((fresh, renamed.map(value)))
        renamed.replace(var, fresh)
    result = renamed.map(renamed.function.body.body)
    plain = assemble(parameters, bindings, result, renamed.attributes)
    for variable, function in module.functions_items():
        if variable.name_hint != "main":
            plain.update_func(variable, function)
    return Plain(plain, layers, called)


def _plain_dimensions(module: ir.IRModule) -> tuple[ir.IRModule, dict[str, str]]:
    function: Any = module["main"]
    symbols: dict[str, Any] = {}
    for parameter in function.params:
        for size in parameter.ty.shape.values:
            if is_symbol(size):
                symbols.setdefault(size.name, size)
    taken = {name for name in symbols if _is_plain(name)}
    swaps: dict[Any, Any] = {}
    called: dict[str, str] = {}
    for name, symbol in symbols.items():
        if name in taken:
            continue
        fresh = f"size_{len(called)}"
        while fresh in taken:
            fresh += "_"
        called[fresh] = name
        swaps[symbol] = tirx.Var(fresh, "int64")
    if not swaps:
        return module, {}
    bounds = function.attrs.get("tir_var_upper_bound")
    module = relax.transform.BindSymbolicVars(swaps)(module)
    if bounds:
        back = {old: new for new, old in called.items()}
        fixed = {back.get(str(name), str(name)): size for name, size in bounds.items()}
        module["main"] = module["main"].with_attr("tir_var_upper_bound", fixed)
    return module, called


def _is_plain(name: str) -> bool:
    return bool(_PLAIN.fullmatch(name)) and name not in _RESERVED and not keyword.iskeyword(name)
