"""What lowering produces and the C generator consumes: a straight line of kernel calls.

A `Program` is the model after every decision but two has been taken: where each buffer lies
(`memory.py` decides) and how it is printed (`emit.py` decides).
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np

DTYPE_BYTES = {
    "int8": 1,
    "uint8": 1,
    "bool": 1,
    "int16": 2,
    "uint16": 2,
    "int32": 4,
    "uint32": 4,
    "float32": 4,
    "int64": 8,
    "uint64": 8,
    "float64": 8,
}


@dataclasses.dataclass(frozen=True)
class Buffer:
    """A tensor that exists while the model runs: an input, an output or an intermediate.

    Buffers are compared by identity of their name, which is unique in a program (`name` is the
    model's own name for the value: any text, never printed into C unescaped).
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    scale: float | None = None
    zero_point: int = 0

    @property
    def bytes(self) -> int:
        """Size in bytes."""
        return math.prod(self.shape) * DTYPE_BYTES[self.dtype]


@dataclasses.dataclass(frozen=True, eq=False)
class Constant:
    """An array that lives in flash. `role` ("weights", "bias", "multiplier", "table" ...) is part
    of its C name; equal arrays are stored once."""

    role: str
    array: np.ndarray
    alignment: int = 4


@dataclasses.dataclass(frozen=True)
class Scratch:
    """The call's scratch memory as an argument (``void *``, 8-byte aligned)."""


# One C argument: a pointer to a buffer, to a constant or to the scratch memory, or a literal.
Argument = Buffer | Constant | Scratch | int | float


@dataclasses.dataclass(frozen=True)
class KernelCall:
    """One call of one C function.

    Attributes:
        layer: the model's name for the layer, as reports show it (any text).
        operator: what it computes, e.g. ``"conv2d"``, ``"depthwise"``, ``"add"``.
        function: the C function that is called.
        header: the kernel header that defines it, e.g. ``"conv.h"``; or None when `source` does.
        arguments: in call order.
        inputs: the buffers it reads, in the operator's order.
        outputs: the buffers it writes.
        scratch: bytes of scratch memory it needs.
        overlap: for each input, the smallest distance in bytes by which the first output may start
            *before* that input (``output.offset <= input.offset - distance``) while they share
            memory: 0 means in place, None means they must not share memory. A distance at least
            as large as the output is the same as None.
        overlap_exact: input and first output may share memory only at exactly the distance in
            `overlap`, not at a larger one (a depthwise convolution in place: it finishes one
            channel before it reads the next, and its output falls on that channel's own bytes).
        macs: multiply-accumulates on real data (padding not counted), for reports.
        source: C text of a function generated for this call (TIR route), after ``#include`` lines
            for the kernel headers that it needs, or None. Calls with equal `function` have equal
            `source`, which is printed once.
        note: why this call is slower or less exact than a user would expect (a float island, a
            generic kernel), or None.
    """

    layer: str
    operator: str
    function: str
    header: str | None
    arguments: tuple[Argument, ...]
    inputs: tuple[Buffer, ...]
    outputs: tuple[Buffer, ...]
    scratch: int = 0
    overlap: tuple[int | None, ...] = ()
    overlap_exact: bool = False
    macs: int = 0
    source: str | None = None
    note: str | None = None


@dataclasses.dataclass(frozen=True)
class Program:
    """A lowered model: the calls in order, and its interface.

    `aliases` maps a buffer's name to the buffer whose memory it is (a reshape costs nothing).
    `output_names` are the outputs' names in the model's interface, where they differ from those of
    their buffers (which are the names of layers); empty where they don't.
    """

    name: str
    inputs: tuple[Buffer, ...]
    outputs: tuple[Buffer, ...]
    calls: tuple[KernelCall, ...]
    aliases: dict[str, Buffer] = dataclasses.field(default_factory=dict)
    output_names: tuple[str, ...] = ()
