"""Element by element: addition, multiplication, tables, softmax."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from tvm import relax

from ..program import Argument, Buffer, Constant, KernelCall
from ..target import McuTarget
from .window import attributes

_RANK = 4


def lower_add(
    layer: str,
    call: relax.Call,
    inputs: Sequence[Buffer],
    output: Buffer,
    constants: Mapping[int, np.ndarray],
    target: McuTarget,
) -> KernelCall | None:
    """``fewbits.add``; either operand may be a constant.

    Not covered (None): broadcasting over more than four separate groups of axes.
    """
    names = ("a_multiplier", "b_multiplier", "bias", "shift", "minimum", "maximum")
    literals = [int(attributes(call)[name]) for name in names]
    return _binary(layer, "add", "add.h", inputs, output, constants, literals)


def lower_multiply(
    layer: str,
    call: relax.Call,
    inputs: Sequence[Buffer],
    output: Buffer,
    constants: Mapping[int, np.ndarray],
    target: McuTarget,
) -> KernelCall | None:
    """``fewbits.multiply``; either operand may be a constant.

    Not covered (None): broadcasting over more than four separate groups of axes.
    """
    names = ("a_zero", "b_zero", "bias", "multiplier", "shift", "minimum", "maximum")
    literals = [int(attributes(call)[name]) for name in names]
    return _binary(layer, "multiply", "elementwise.h", inputs, output, constants, literals)


def lower_lookup(
    layer: str,
    call: relax.Call,
    inputs: Sequence[Buffer],
    output: Buffer,
    constants: Mapping[int, np.ndarray],
    target: McuTarget,
) -> KernelCall | None:
    """``fewbits.lookup``. Not covered (None): a table that is computed."""
    if 1 not in constants:
        return None
    # The kernel's index is the code as an unsigned byte: 0..127, then -128..-1.
    table = np.roll(constants[1].astype(np.int8), 128)
    return KernelCall(
        layer=layer,
        operator="lookup",
        function="fb_lookup_s8",
        header="elementwise.h",
        arguments=(inputs[0], output, Constant("table", table), math.prod(output.shape)),
        inputs=tuple(inputs),
        outputs=(output,),
        overlap=(0,),
    )


def lower_softmax(
    layer: str,
    call: relax.Call,
    inputs: Sequence[Buffer],
    output: Buffer,
    constants: Mapping[int, np.ndarray],
    target: McuTarget,
) -> KernelCall | None:
    """``fewbits.softmax``.

    Not covered (None): a table that is computed, rows or factors so large that 32 bits are
    exceeded, or a table that is not one of exponentials.
    """
    if 1 not in constants:
        return None
    table, length = constants[1].astype(np.int32), output.shape[-1]
    names = ("multiplier", "bias", "shift", "minimum", "maximum")
    literals = [int(attributes(call)[name]) for name in names]
    reach = 65536 * abs(literals[0]) + abs(literals[1])
    if table[0] != 2**15 or table.min() < 0 or table.max() > 2**15:
        return None
    if reach >= 2**31 or length > 2**15:
        return None
    rows = math.prod(output.shape[:-1])
    exponentials = Constant("table", table.astype(np.uint16))
    return KernelCall(
        layer=layer,
        operator="softmax",
        function="fb_softmax_s8",
        header="softmax.h",
        arguments=(inputs[0], output, exponentials, rows, length, *literals),
        inputs=tuple(inputs),
        outputs=(output,),
        overlap=(0,),
    )


def _binary(
    layer: str,
    operator: str,
    header: str,
    inputs: Sequence[Buffer],
    output: Buffer,
    constants: Mapping[int, np.ndarray],
    literals: Sequence[int],
) -> KernelCall | None:
    """A call of a kernel with two broadcast operands; the output may lie on a whole one."""
    buffers = iter(inputs)
    operands: list[Argument] = []
    shapes: list[tuple[int, ...]] = []
    for index in (0, 1):
        if index in constants:
            shapes.append(constants[index].shape)
            operands.append(Constant("operand", np.ascontiguousarray(constants[index])))
        else:
            buffer = next(buffers)
            shapes.append(buffer.shape)
            operands.append(buffer)
    walk = broadcast_walk(output.shape, shapes)
    if walk is None:
        return None
    sizes, steps = walk
    whole = math.prod(output.shape)
    return KernelCall(
        layer=layer,
        operator=operator,
        function=f"fb_{operator}_s8",
        header=header,
        arguments=(*operands, output, *sizes, *steps[0], *steps[1], *literals),
        inputs=tuple(inputs),
        outputs=(output,),
        overlap=tuple(0 if math.prod(buffer.shape) == whole else None for buffer in inputs),
    )


def broadcast_walk(
    shape: tuple[int, ...], operands: Sequence[tuple[int, ...]]
) -> tuple[list[int], list[list[int]]] | None:
    """How to walk through operands broadcast to `shape`, in as few axes as possible.

    Returns:
        Four sizes (leading ones are 1), and for each operand its four steps in elements, 0 along
        an axis that it is broadcast over; or None where four axes are too few.
    """
    columns: list[tuple[int, list[int]]] = []
    for axis in range(len(shape)):
        if shape[axis] == 1:
            continue
        steps = [_step(operand, axis - len(shape)) for operand in operands]
        if columns and all(
            before == step * shape[axis] for before, step in zip(columns[-1][1], steps, strict=True)
        ):
            columns[-1] = (columns[-1][0] * shape[axis], steps)
        else:
            columns.append((shape[axis], steps))
    if len(columns) > _RANK:
        return None
    columns = [(1, [0] * len(operands))] * (_RANK - len(columns)) + columns
    return (
        [size for size, _ in columns],
        [[steps[i] for _, steps in columns] for i in range(len(operands))],
    )


def _step(operand: tuple[int, ...], axis: int) -> int:
    """Elements from one index of a (negative) axis to the next; 0 where the axis is broadcast."""
    if -axis > len(operand) or operand[axis] == 1:
        return 0
    return math.prod(operand[len(operand) + axis + 1 :])
