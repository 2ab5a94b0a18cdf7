"""Functions on the host that launch kernels: what a graph calls."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script import builder

from .architecture import Architecture

#: TVM's builder; its annotations are narrower than what it gives.
T: Any = builder

#: Name, shape and dtype of an array.
Parameter: TypeAlias = tuple[str, tuple[Any, ...], str]


def host_function(
    name: str,
    architecture: Architecture,
    parameters: Sequence[Parameter],
    write: Callable[[Callable[[str], None]], None],
) -> Any:
    """A PrimFunc that calls functions of its own parameters by name.

    Args:
        name: its global symbol.
        architecture: whose memory the arrays lie in.
        parameters: with its variables in their shapes.
        write: emits the statements; given what emits a call of a function of that name.
    """
    with IRBuilder() as ir_builder, T.prim_func(s_tir=True):
        T.func_name(name)
        # The target says where the arrays lie; without threads the code stays on the host.
        T.func_attr({"tirx.is_scheduled": True, "target": architecture.tvm_target()})
        handles = [(T.arg(f"{title}_ptr", T.handle()), *rest) for title, *rest in parameters]
        buffers = [T.match_buffer(handle, shape, dtype) for handle, shape, dtype in handles]
        write(lambda callee: T.evaluate(T.call_packed(callee, *buffers)))
    return ir_builder.get()
