"""Where the largest or smallest element of a row is: a warp or a block for each row.

The legalized reduction carries two values, the best element and its place, and says in one formula
what one more element does to them. The same formula joins what two threads have found: one's best
is the other's next element. Of equal elements the first wins, whatever thread saw it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import tvm_ffi
from tvm import ir, tirx
from tvm.ir import prim
from tvm.tirx.script import builder as T

from ...stages.access import reads_along
from ...stages.program import Axis, constant, is_one, substitute, total
from .combine import WARP, of_warps
from .launch import (
    barrier,
    bound,
    ceildiv,
    fused,
    index,
    launch,
    registers,
    simplified,
    unrolled,
    when,
    with_loads,
)
from .numbers import dtype_of
from .opaque import BlockNest

_BLOCK = 256
#: Rows up to this length have a warp each.
_WARP_COLUMNS = 1024
_SHUFFLED = frozenset({"float32", "int32"})


@dataclasses.dataclass(frozen=True)
class ArgRows:
    """``place, best = next(place, best, column, element)`` over the columns of each row.

    Attributes:
        rows: axes.
        column: the axis along memory.
        stores: of the place and of the best element, in the block.
        initial: of both.
        updates: the formulas of both.
        element: the read of one element.
    """

    rows: tuple[Axis, ...]
    column: Axis
    stores: tuple[tirx.BufferStore, tirx.BufferStore]
    initial: tuple[Any, Any]
    updates: tuple[Any, Any]
    element: ir.TensorLoad


def read_arg_rows(nest: BlockNest) -> ArgRows | None:
    """The nest as an arg-max or arg-min along memory, or None."""
    reduced = [axis for axis in nest.axes if axis.reduces and not is_one(axis.extent)]
    if len(reduced) != 1 or nest.block.init is None:
        return None
    statements = tirx.stmt_list(nest.block.body)
    values = {each.var: each.value for each in statements if isinstance(each, tirx.Bind)}
    stores = [each for each in statements if isinstance(each, tirx.BufferStore)]
    starts = [e for e in tirx.stmt_list(nest.block.init) if isinstance(e, tirx.BufferStore)]
    if len(stores) != 2 or len(starts) != 2 or len(values) + 2 != len(statements):
        return None
    updates = [values.get(each.value, each.value) for each in stores]
    best = updates[1]
    if not isinstance(best, prim.Select) or not isinstance(best.false_value, ir.TensorLoad):
        return None
    kinds = dtype_of(stores[0].buffer), dtype_of(stores[1].buffer)
    if kinds[0] != "int32" or kinds[1] not in _SHUFFLED:
        return None
    if not reads_along(best.false_value, reduced[0].var):
        return None
    return ArgRows(
        tuple(axis for axis in nest.axes if not axis.reduces),
        reduced[0],
        (stores[0], stores[1]),
        (starts[0].value, starts[1].value),
        (updates[0], updates[1]),
        best.false_value,
    )


def emit_arg_rows(arg: ArgRows) -> None:
    """The kernel."""
    extent = constant(arg.column.extent)
    lanes = WARP if extent is not None and extent <= _WARP_COLUMNS else _BLOCK
    rows = _BLOCK // 2 // WARP if lanes == WARP else 1
    count = simplified(total([axis.extent for axis in arg.rows]))
    with launch(ceildiv(count, rows), lanes, rows) as (block, lane, own):
        row = T.Bind(block * rows + own)
        places = bound(fused(arg.rows, T.Bind(tirx.min(row, count - 1))))
        held = [registers(1, dtype_of(store.buffer)) for store in arg.stores]
        for register, initial in zip(held, arg.initial, strict=True):
            T.buffer_store(register, initial, [index(0)])
        with T.serial(index(0), ceildiv(arg.column.extent, lanes)) as step:
            column = step * lanes + lane
            with when(column < arg.column.extent):
                at = {**places, arg.column.var: column}
                _join(arg, held, column, substitute(arg.element, at))
        _across(arg, held, lanes, lane)
        with when(tirx.all(lane == 0, row < count)):
            for register, store in zip(held, arg.stores, strict=True):
                at = [substitute(i, places) for i in store.indices]
                T.buffer_store(store.buffer, register[index(0)], at)


def _join(arg: ArgRows, held: list[Any], column: Any, element: Any) -> None:
    """What one more element, or another thread's best, does to the two registers."""
    buffers = [store.buffer for store in arg.stores]

    def replace(load: ir.TensorLoad) -> Any:
        for buffer, register in zip(buffers, held, strict=True):
            if load.source.same_as(buffer):
                return tirx.BufferLoad(register, [index(0)])
        return element if tvm_ffi.structural_equal(load, arg.element) else load

    updated = [substitute(with_loads(u, replace), {arg.column.var: column}) for u in arg.updates]
    fresh = [T.Bind(value) for value in updated]
    for register, value in zip(held, fresh, strict=True):
        T.buffer_store(register, value, [index(0)])


def _across(arg: ArgRows, held: list[Any], lanes: int, lane: Any) -> None:
    others = [registers(1, dtype_of(register)) for register in held]
    everyone = tirx.const(0xFFFFFFFF, "uint32")
    distance = WARP // 2
    while distance:
        for other, register in zip(others, held, strict=True):
            shuffled = T.tvm_warp_shuffle_xor(everyone, register[index(0)], distance, WARP, WARP)
            T.buffer_store(other, shuffled, [index(0)])
        _join_registers(arg, held, lambda n: others[n][index(0)])
        distance //= 2
    if lanes == WARP:
        return
    warps = lanes // WARP
    scratch = [of_warps(register, warps, lane) for register in held]
    barrier()
    for memory, register in zip(scratch, held, strict=True):
        T.buffer_store(register, memory[index(0)], [index(0)])
    unrolled(warps - 1, lambda w: _join_registers(arg, held, lambda n: scratch[n][w + 1]))


def _join_registers(arg: ArgRows, held: list[Any], other: Callable[[int], Any]) -> None:
    _join(arg, held, tirx.Cast("int64", other(0)), other(1))
