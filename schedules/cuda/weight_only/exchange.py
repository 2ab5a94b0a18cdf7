"""From sums in registers to results: warps that share outputs are added in a fixed order.

Sums go through shared memory, where outputs turn from rows of the instruction to columns of y, so
that stores are contiguous.
"""

from __future__ import annotations

from typing import Any

from tvm import tirx
from tvm.tirx.script import builder

from ..parameters import Parameters, barrier, held, long
from .planes import TILE
from .tokens import Tokens

#: TVM's builder; its annotations are narrower than what it gives.
T: Any = builder

#: Outputs more than a line has, so that lanes of different tokens store to different banks.
_PADDING = 4


def sums_bytes(slices: int, lines: int, outputs: int) -> int:
    """Of shared memory."""
    return 4 * slices * lines * (outputs + _PADDING)


def finish(
    parameters: Parameters,
    shared: Any,
    sums: Any,
    *,
    tokens: Tokens,
    tiles: int,
    slices: int,
    slice_: Any,
    first_output: Any,
    outputs: int,
    place: tuple[Any, Any],
) -> None:
    """Add up, apply factors and epilogue, store.

    Args:
        parameters: of the kernel.
        shared: the block's memory, in bytes; what lies there is not needed any more.
        sums: float32, the thread's: four for each of its tiles and groups of eight lines.
        tokens: of the block.
        tiles: of outputs that a warp has.
        slices: warps that share outputs.
        slice_: the warp's number among them.
        first_output: the warp's first output in the block, int32.
        outputs: of the block.
        place: the block's first token (int64) and output (int32).
    """
    lines, columns = tokens.lines, tokens.columns
    shape = (slices, lines, outputs + _PADDING)
    exchange = T.decl_buffer(shape, "float32", data=shared.data, scope="shared.dyn")
    lane = held(tokens.thread % 32)
    barrier()
    for tile in range(tiles):
        for column in range(columns):
            for i in range(4):
                line = held(8 * column + lane % 4 * 2 + i % 2)
                output = held(first_output + tile * TILE + i // 2 * 8 + lane // 4)
                value = sums[(tile * columns + column) * 4 + i]
                if 8 * (column + 1) <= lines:
                    T.buffer_store(exchange, value, [slice_, line, output])
                    continue
                with T.If(line < lines), T.Then():
                    T.buffer_store(exchange, value, [slice_, line, output])
    barrier()
    count, threads = outputs * tokens.tokens, tokens.threads
    with T.serial(-(-count // threads)) as turn:
        number = held(turn * threads + tokens.thread)
        token, output = held(number // outputs), held(number % outputs)
        row = held(place[0] + long(token))
        column = held(long(place[1] + output))
        inside = tirx.all(row < parameters.rows, column < parameters.problem.outputs)
        if count % threads:
            inside = tirx.all(number < count, inside)
        with T.If(inside), T.Then():
            total: Any = tirx.const(0.0, "float32")
            # The smallest parts of float32 tokens first.
            for part in reversed(range(tokens.parts)):
                for number_ in range(slices):
                    total = total + exchange[number_, token * tokens.parts + part, output]
            total = held(total * parameters.weight[1][column])
            T.buffer_store(parameters.y, parameters.value(total, row, column), [row, column])
