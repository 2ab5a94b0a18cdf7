"""Products of two run-time matrices to `kernels/matmul.h`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from tvm import relax

from ..program import Buffer, KernelCall, Scratch
from ..target import McuTarget
from .window import attributes


def lower_matmul(
    layer: str,
    call: relax.Call,
    inputs: Sequence[Buffer],
    output: Buffer,
    constants: Mapping[int, np.ndarray],
    target: McuTarget,
) -> KernelCall | None:
    """``fewbits.matmul(a, b)``; None (the generic route) where only part of a batch repeats."""
    if len(inputs) != 2:
        return None
    a, b = inputs
    batch = math.prod(output.shape[:-2])
    steps = []
    for operand in (a, b):
        matrices = math.prod(operand.shape[:-2])
        if matrices not in (1, batch):
            return None
        steps.append(0 if matrices == 1 else operand.shape[-2] * operand.shape[-1])
    rows, depth = a.shape[-2:]
    columns = b.shape[-1]
    if steps[1] == 0 and steps[0]:  # One matrix times many: those are one of many rows.
        batch, rows, steps[0] = 1, batch * rows, 0
    by_columns = target.dsp and rows >= 3
    attrs = attributes(call)
    numbers = ("a_zero", "b_zero", "bias", "multiplier", "shift", "minimum", "maximum")
    return KernelCall(
        layer=layer,
        operator="matmul",
        function="fb_matmul_columns" if by_columns else "fb_matmul_rows",
        header="matmul.h",
        arguments=(
            a, b, output, Scratch(), batch, rows, depth, columns, *steps,
            *(int(attrs[name]) for name in numbers),
        ),
        inputs=(a, b),
        outputs=(output,),
        scratch=32 * (-(-depth // 4)) if by_columns else 2 * depth,
        overlap=(None, None),
        macs=batch * rows * depth * columns,
    )  # fmt: skip
