"""The model's inputs and outputs as its generated C header names them."""

from __future__ import annotations

import dataclasses
import math
from typing import Literal

import numpy as np

from .ctext import C_TYPES
from .liveness import roots
from .memory import MemoryPlan
from .names import Names, c_string, identifier
from .program import Buffer, Constant, Program


@dataclasses.dataclass(frozen=True)
class Port:
    """One input or output.

    Attributes:
        role: ``"input"`` or ``"output"``.
        name: its name in the model, any text.
        label: ``"input"`` where there is one, else ``"input_0"``, ``"input_1"`` ...
        macro: prefix of its macros, e.g. ``KWS_INPUT``.
        parameter: its parameter of the run function, e.g. ``in`` or ``in_mask``.
        buffer: the tensor.
        offset: its place in the arena.
    """

    role: Literal["input", "output"]
    name: str
    label: str
    macro: str
    parameter: str
    buffer: Buffer
    offset: int

    @property
    def c_type(self) -> str:
        """C type of its elements."""
        return C_TYPES[self.buffer.dtype]

    @property
    def c_name(self) -> str:
        """Its name in the model as a C string literal."""
        return c_string(self.name)

    @property
    def elements(self) -> int:
        """Number of elements."""
        return math.prod(self.buffer.shape)

    @property
    def quantized(self) -> bool:
        """It holds codes of real numbers."""
        return self.buffer.scale is not None and self.buffer.dtype in ("int8", "uint8", "int16")

    @property
    def code_range(self) -> tuple[int, int]:
        """Smallest and largest code of a quantized port."""
        limits = np.iinfo(self.buffer.dtype)
        return int(limits.min), int(limits.max)


@dataclasses.dataclass(frozen=True)
class Interface:
    """The whole interface.

    Attributes:
        model: C identifier of the model; `macro` is the same in capitals.
        inputs: in the order of the run function.
        outputs: after the inputs.
        integer_only: nothing in the library computes with floats.
    """

    model: str
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    integer_only: bool

    @property
    def macro(self) -> str:
        """Prefix of the model's macros."""
        return self.model.upper()

    @property
    def ports(self) -> tuple[Port, ...]:
        """Inputs, then outputs."""
        return (*self.inputs, *self.outputs)

    @staticmethod
    def of(program: Program, plan: MemoryPlan) -> Interface:
        """The interface of a program.

        Raises:
            ValueError: two inputs or outputs share one buffer, so that pointers from outside
                could not tell them apart (lowering copies such outputs).
        """
        model = identifier(program.name)
        root_of = roots(program)
        owners = [root_of[b.name].name for b in (*program.inputs, *program.outputs)]
        if len(set(owners)) != len(owners):
            raise ValueError("an output shares its buffer with an input or another output")
        input_names = tuple(buffer.name for buffer in program.inputs)
        output_names = program.output_names or tuple(b.name for b in program.outputs)
        inputs = _ports("input", program.inputs, input_names, model, plan)
        outputs = _ports("output", program.outputs, output_names, model, plan)
        return Interface(model, inputs, outputs, _integer_only(program))


def _ports(
    role: Literal["input", "output"],
    buffers: tuple[Buffer, ...],
    titles: tuple[str, ...],
    model: str,
    plan: MemoryPlan,
) -> tuple[Port, ...]:
    short = {"input": "in", "output": "out"}[role]
    names = Names()
    ports: list[Port] = []
    for position, (buffer, name) in enumerate(zip(buffers, titles, strict=True)):
        alone = len(buffers) == 1
        label = role if alone else f"{role}_{position}"
        parameter = short if alone else f"{short}_{names.unique(name)}"
        macro = f"{model}_{label}".upper()
        ports.append(Port(role, name, label, macro, parameter, buffer, plan.offsets[buffer.name]))
    return tuple(ports)


def _integer_only(program: Program) -> bool:
    for call in program.calls:
        if any(b.dtype == "float32" for b in (*call.inputs, *call.outputs)):
            return False
        for argument in call.arguments:
            if isinstance(argument, float):
                return False
            if isinstance(argument, Constant) and argument.array.dtype.kind == "f":
                return False
    return True
