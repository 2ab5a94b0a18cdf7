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
from .elementwise import lower_add, lower_lookup, lower_multiply, lower_softmax
from .matmul import lower_matmul
from .movement import (
    lower_concat,
    lower_pad,
    lower_permute_dims,
    lower_resize2d,
    lower_split,
    lower_strided_slice,
    lower_take,
)
from .pool import lower_average_pool2d, lower_max_pool2d
from .quantize import lower_dequantize, lower_quantize

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


def _dense(
    layer: str,
    call: relax.Call,
    inputs: Sequence[Buffer],
    output: Buffer,
    constants: Mapping[int, np.ndarray],
    target: McuTarget,
) -> KernelCall | None:
    if any(array.dtype == np.int16 for array in constants.values()):
        return None
    return lower_dense(layer, call, inputs, output, constants, target)


#: Relax operator → rule.
RULES: dict[str, Rule] = {
    "fewbits.conv2d": _convolution,
    "fewbits.dense": _dense,
    "fewbits.matmul": lower_matmul,
    "fewbits.add": lower_add,
    "fewbits.multiply": lower_multiply,
    "fewbits.lookup": lower_lookup,
    "fewbits.average_pool2d": lower_average_pool2d,
    "fewbits.max_pool2d": lower_max_pool2d,
    "fewbits.softmax": lower_softmax,
    "relax.permute_dims": lower_permute_dims,
    "relax.strided_slice": lower_strided_slice,
    "relax.concat": lower_concat,
    "relax.split": lower_split,
    "relax.nn.pad": lower_pad,
    "relax.take": lower_take,
    "relax.image.resize2d": lower_resize2d,
    "relax.quantize": lower_quantize,
    "relax.dequantize": lower_dequantize,
}
