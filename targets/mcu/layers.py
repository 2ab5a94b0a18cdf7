"""Each layer as a C function of its own, so that profilers and debuggers see layers."""

from __future__ import annotations

import numbers
import operator
from collections.abc import Mapping, Sequence

from . import ctext
from .interface import Interface, Port
from .liveness import roots
from .memory import MemoryPlan
from .names import comment
from .program import Argument, Buffer, Constant, KernelCall, Program, Scratch


class LayerPrinter:
    """Prints one layer as a function that passes pointers and literals to its kernel."""

    def __init__(
        self,
        program: Program,
        plan: MemoryPlan,
        interface: Interface,
        table_of: Mapping[int, str],
    ) -> None:
        self._plan = plan
        self._root_of = roots(program)
        self._table_of = table_of
        self._ports = {self._root_of[port.buffer.name].name: port for port in interface.ports}

    def layer(self, position: int, kernel: KernelCall) -> tuple[str, list[str], bool]:
        """The function's text, the arguments for calling it, and whether it uses the arena."""
        written = {buffer.name for buffer in kernel.outputs}
        ports: dict[str, Port] = {}
        in_arena = False
        arguments: list[str] = []
        for argument in kernel.arguments:
            text, port, arena = self._argument(position, argument, written)
            arguments.append(text)
            in_arena = in_arena or arena
            if port is not None:
                ports[port.parameter] = port
        parameters = [
            f"{'const ' if port.role == 'input' else ''}{port.c_type} *{name}"
            for name, port in ports.items()
        ]
        names = list(ports)
        if in_arena:
            parameters.append("uint8_t *arena")
            names.append("base")
        text = (
            f"/* {self._description(position, kernel)} */\n"
            f"FB_LAYER void fb_layer_{position}({', '.join(parameters) or 'void'})\n"
            f"{{\n{ctext.call(kernel.function, arguments)}\n}}\n"
        )
        return text, names, in_arena

    def _argument(
        self, position: int, argument: Argument, written: set[str]
    ) -> tuple[str, Port | None, bool]:
        """The argument as C, the model input or output it is, whether it points into the arena."""
        if isinstance(argument, Buffer):
            return self._pointer(argument, argument.name in written)
        if isinstance(argument, Constant):
            return self._table_of[id(argument)], None, False
        if isinstance(argument, Scratch):
            offset = self._plan.scratch[position]
            if offset is None:
                return "NULL", None, False
            return f"arena + {offset}", None, True
        if isinstance(argument, numbers.Integral):
            return ctext.integer(operator.index(argument)), None, False
        return ctext.single(float(argument)), None, False

    def _pointer(self, buffer: Buffer, written: bool) -> tuple[str, Port | None, bool]:
        const = "" if written else "const "
        c_type = ctext.C_TYPES[buffer.dtype]
        port = self._ports.get(self._root_of[buffer.name].name)
        if port is not None:
            if port.c_type == c_type:
                return port.parameter, port, False
            through = "const void *" if port.role == "input" or not written else "void *"
            return f"({const}{c_type} *)({through}){port.parameter}", port, False
        offset = self._plan.offsets[buffer.name]
        return f"({const}{c_type} *)({const}void *)(arena + {offset})", None, True

    def _description(self, position: int, kernel: KernelCall) -> str:
        def tensors(buffers: Sequence[Buffer]) -> str:
            return ", ".join(f"{b.dtype}[{','.join(map(str, b.shape))}]" for b in buffers)

        text = (
            f"{position}: {comment(kernel.layer)} ({comment(kernel.operator)})\n"
            f" * {tensors(kernel.inputs)} -> {tensors(kernel.outputs)}"
        )
        if kernel.macs:
            text += f", {kernel.macs} MACs"
        if kernel.scratch:
            text += f", {kernel.scratch} bytes of scratch"
        if kernel.note:
            text += f"\n * {comment(kernel.note)}"
        return text
