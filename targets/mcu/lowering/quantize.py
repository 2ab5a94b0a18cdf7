"""The borders of float islands and of the model: quantize and dequantize."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from tvm import relax

from ..program import Buffer, KernelCall
from ..target import McuTarget


def lower_quantize(
    layer: str,
    call: relax.Call,
    inputs: Sequence[Buffer],
    output: Buffer,
    constants: Mapping[int, np.ndarray],
    target: McuTarget,
) -> KernelCall | None:
    """``relax.quantize`` from float32 to int8; NaN becomes the code of zero.

    Not covered (None): scales per channel or computed, other types.
    """
    if (inputs[0].dtype, output.dtype) != ("float32", "int8"):
        return None
    return _per_tensor(layer, "quantize", inputs, output, constants, overlap=0)


def lower_dequantize(
    layer: str,
    call: relax.Call,
    inputs: Sequence[Buffer],
    output: Buffer,
    constants: Mapping[int, np.ndarray],
    target: McuTarget,
) -> KernelCall | None:
    """``relax.dequantize`` from int8 to float32.

    Not covered (None): scales per channel or computed, other types.
    """
    if (inputs[0].dtype, output.dtype) != ("int8", "float32"):
        return None
    # Output i ends at byte 4 (i + 1); input i + 1 must not lie below it.
    distance = 3 * (math.prod(output.shape) - 1)
    return _per_tensor(layer, "dequantize", inputs, output, constants, overlap=distance)


def _per_tensor(
    layer: str,
    operator: str,
    inputs: Sequence[Buffer],
    output: Buffer,
    constants: Mapping[int, np.ndarray],
    overlap: int,
) -> KernelCall | None:
    if set(constants) != {1, 2} or constants[1].size != 1 or constants[2].size != 1:
        return None
    scale, zero_point = float(constants[1].reshape(())), int(constants[2].reshape(()))
    return KernelCall(
        layer=layer,
        operator=operator,
        function=f"fb_{operator}_s8",
        header="quantize.h",
        arguments=(inputs[0], output, math.prod(output.shape), scale, zero_point),
        inputs=tuple(inputs),
        outputs=(output,),
        overlap=(overlap,),
    )
