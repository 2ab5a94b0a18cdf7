"""What a product goes through on its way from registers to memory: bias, activation, addend."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, Literal

from tvm import tirx
from tvm.tirx.script import builder as T

from . import vector_math
from .intrinsics_emit import Extent, flat, index, lanes_of, local, product, store

Activation = Literal["relu", "gelu", "silu", "tanh", "sigmoid"]


@dataclasses.dataclass(frozen=True)
class Epilogue:
    """What is done to a product before it is stored.

    Attributes:
        bias: add a vector [N].
        activation: apply a function, after the bias.
        addend: add a tensor of the output's shape: ``first`` of all, or ``last``.
    """

    bias: bool = False
    activation: Activation | None = None
    addend: Literal["first", "last"] | None = None


#: The product as it is.
PLAIN = Epilogue()


def _activated(kind: Activation, x: Any) -> Any:
    """The activation of a float32 expression."""
    if kind == "relu":
        return tirx.max(x, vector_math.spread(0.0, x))
    if kind == "gelu":
        inner = vector_math.erf(x * vector_math.spread(math.sqrt(0.5), x))
        one, half = vector_math.spread(1.0, x), vector_math.spread(0.5, x)
        return x * half * (one + inner)
    if kind == "silu":
        return x * vector_math.sigmoid(x)
    return vector_math.tanh(x) if kind == "tanh" else vector_math.sigmoid(x)


@dataclasses.dataclass
class Output:
    """The last arguments of a kernel: (bias), (addend), y; and how vectors get into y."""

    epilogue: Epilogue
    outputs: int
    lanes: int
    bias: Any
    addend: Any
    y: Any
    count: Extent

    @classmethod
    def declare(
        cls, epilogue: Epilogue, leading: Sequence[Extent], outputs: int, lanes: int
    ) -> Output:
        """Declare the arguments; the bias is padded to whole vectors."""
        padded = -(-outputs // lanes) * lanes
        bias = T.arg("bias", T.buffer((padded,), "float32")) if epilogue.bias else None
        shape = (*leading, index(outputs))
        addend = T.arg("addend", T.buffer(shape, "float32")) if epilogue.addend else None
        y = T.arg("y", T.buffer(shape, "float32"))
        return cls(epilogue, outputs, lanes, bias, addend, y, product(shape))

    def open(self) -> None:
        """To be called before the first `write`, inside the kernel's body."""
        self.y = flat(self.y, self.count)
        if self.addend is not None:
            self.addend = flat(self.addend, self.count)

    def write(self, row: Any, column: Any, value: Any) -> None:
        """Finish a vector of float32 values and store it at a row and a column."""
        lanes = self.lanes
        start = row * self.outputs + column
        if self.outputs % lanes == 0:
            self._vector(value, column, start)
            return
        staged = local(lanes, "float32")
        store(staged, lanes, value)
        with T.If(column + lanes <= self.outputs):
            with T.Then():
                self._vector(lanes_of(staged, lanes), column, start)
            with T.Else(), T.serial(index(0), self.outputs - column) as lane:
                self._scalar(staged, lane, column, start)

    def _vector(self, value: Any, column: Any, start: Any) -> None:
        lanes, steps = self.lanes, self.epilogue
        if steps.addend == "first":
            value = value + lanes_of(self.addend, lanes, start)
        if steps.bias:
            value = value + lanes_of(self.bias, lanes, column)
        if steps.activation is not None:
            value = _activated(steps.activation, T.Bind(value))
        if steps.addend == "last":
            value = value + lanes_of(self.addend, lanes, start)
        store(self.y, lanes, value, start)

    def _scalar(self, staged: Any, lane: Any, column: Any, start: Any) -> None:
        steps = self.epilogue
        value = staged[lane]
        if steps.addend == "first":
            value = value + self.addend[start + lane]
        if steps.bias:
            value = value + self.bias[column + lane]
        if steps.activation is not None:
            T.buffer_store(staged, value, [lane])
            value = _activated(steps.activation, staged[lane])
        if steps.addend == "last":
            value = value + self.addend[start + lane]
        T.buffer_store(self.y, value, [start + lane])
