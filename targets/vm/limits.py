"""Sizes that a library refuses, whoever calls it: none at all, and more than a model has room for.

A table of positions ends somewhere, and compiled code would read on behind it. So the library
looks at its arguments first; whoever calls it gets an error as from any function of TVM.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tvm import ir, relax, tirx

from ...ops.evaluate import largest_sizes
from ...ops.symbolic import is_symbol

CHECK = "check_sizes"


def check_sizes(module: ir.IRModule, called: Mapping[str, str] | None = None) -> ir.IRModule:
    """``main`` begins with a check of its symbolic sizes.

    Args:
        module: after ``CallTIRRewrite``: calls of loops are calls, and nothing is pure any more.
        called: the names of dimensions in messages, where they differ from those in the module.
    """
    function: Any = module["main"]
    check = _check_function(function.params, largest_sizes(module), called or {})
    if check is None:
        return module
    builder = relax.BlockBuilder(module)
    call = builder.normalize(relax.Call(builder.add_func(check, CHECK), list(function.params)))
    first = relax.BindingBlock([relax.VarBinding(relax.Var(CHECK, call.ty), call)])
    body = relax.SeqExpr([first, *function.body.blocks], function.body.body)
    result = builder.get()
    result["main"] = relax.Function(
        function.params, body, function.ret_ty, function.is_pure, function.attrs, function.span
    )
    return result


def _check_function(
    parameters: list[Any], largest: dict[str, int], called: Mapping[str, str]
) -> tirx.PrimFunc | None:
    """Loops without loops: assertions about the symbols in the parameters' shapes."""
    symbols: dict[str, Any] = {}
    buffers = []
    for parameter in parameters:
        shape = []
        for size in parameter.ty.shape.values:
            if is_symbol(size):
                size = symbols.setdefault(size.name, tirx.Var(f"size_{len(symbols)}", "int64"))
            shape.append(size)
        buffers.append(tirx.decl_buffer(shape, str(parameter.ty.dtype), f"x{len(buffers)}"))
    if not symbols:
        return None
    asserts = []
    for name, size in symbols.items():
        title = called.get(name, name)
        asserts.append(_assert(size >= 1, f"dimension {title!r} is 0"))
        if name in largest:
            limit = largest[name]
            asserts.append(_assert(size <= limit, f"dimension {title!r} is larger than {limit}"))
    return tirx.PrimFunc(buffers, tirx.stmt_seq(*asserts))


def _assert(condition: Any, message: str) -> Any:
    return tirx.AssertStmt(condition, ir.StringImm("ValueError"), [ir.StringImm(message)])
