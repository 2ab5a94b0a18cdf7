"""Which kernel runs an operator and how its constants are laid out, a file per family.

A rule has the signature of `lower_conv2d`; it returns None for cases that it doesn't cover, which
then go through TIR.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from tvm import relax

from ..program import Buffer, KernelCall
from ..target import McuTarget
from .conv import lower_conv2d
from .dense import lower_dense
from .depthwise import lower_depthwise
from .matmul import lower_matmul

Rule = Callable[..., KernelCall | None]


def _convolution(
    layer: str,
    call: relax.Call,
    inputs: Sequence[Buffer],
    output: Buffer,
    constants: Mapping[int, np.ndarray],
    target: McuTarget,
) -> KernelCall | None:
    if any(array.dtype == np.int16 for array in constants.values()):
        return None  # weights with a zero point: exact, through the generic route
    if int(call.attrs["groups"]) > 1:
        depthwise = lower_depthwise(layer, call, inputs, output, constants, target)
        if depthwise is not None:
            return depthwise
    return lower_conv2d(layer, call, inputs, output, constants, target)


#: Relax operator → rule.
RULES: dict[str, Rule] = {
    "fewbits.conv2d": _convolution,
    "fewbits.dense": lower_dense,
    "fewbits.matmul": lower_matmul,
}
