"""Loops, tails and vectors: what the generators of kernels are written with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

from tvm import tirx
from tvm.ir import prim
from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script import builder as T

from ..stages.program import Axis, Stage, constant, is_one, substitute, total

Loop = Callable[[Any, Any], AbstractContextManager[Any]]
#: Loops from the first argument up to the second; ``as`` gives the variable.
serial: Loop = T.serial
vectorized: Loop = T.vectorized
shared: Loop = T.parallel


def function_body(write: Callable[[], None]) -> Any:
    """The statements that `write` emits through TVM's builder."""
    with IRBuilder() as builder:
        with T.prim_func(s_tir=True):
            T.func_name("body")
            write()
        return builder.get().body


def index(value: int) -> Any:
    """A constant index."""
    return prim.IntImm("int64", value)


def local(lanes: int, dtype: str) -> Any:
    """A buffer so small that LLVM keeps it in registers, as long as all its indices are known.

    Its scope is the default one: TVM puts small buffers of other scopes into its pool, and a
    request there costs more than the arithmetic.
    """
    return T.alloc_buffer((lanes,), dtype, layout=None)


def whole(buffer: Any, lanes: int, start: Any = 0) -> Any:
    """`lanes` elements of a flat buffer as one vector."""
    return buffer[tirx.Ramp(_as_index(start), index(1), lanes)]


def put(buffer: Any, lanes: int, value: Any, start: Any = 0) -> None:
    """Store a vector to consecutive elements of a flat buffer."""
    T.buffer_store(buffer, value, [tirx.Ramp(_as_index(start), index(1), lanes)])


def _as_index(start: Any) -> Any:
    return index(start) if isinstance(start, int) else start


def grid(axes: Sequence[Axis], write: Callable[[dict[Any, Any]], None]) -> None:
    """Serial loops over the axes; `write` gets the values of their variables."""

    def nest(rest: Sequence[Axis], values: dict[Any, Any]) -> None:
        if not rest:
            write(values)
        elif is_one(rest[0].extent):
            nest(rest[1:], {**values, rest[0].var: index(0)})
        else:
            with serial(index(0), rest[0].extent) as i:
                nest(rest[1:], {**values, rest[0].var: i})

    nest(list(axes), {})


def fused(axes: Sequence[Axis], position: Any) -> dict[Any, Any]:
    """The axes' values at a position of the one loop over all of them, the last fastest."""
    values: dict[Any, Any] = {}
    wide = [axis for axis in axes if not is_one(axis.extent)]
    for number, axis in reversed(list(enumerate(wide))):
        values[axis.var] = position if number == 0 else position % axis.extent
        position = position // axis.extent
    return {axis.var: values.get(axis.var, index(0)) for axis in axes}


def spread(axes: Sequence[Axis], parallel: bool, write: Callable[[dict[Any, Any]], None]) -> None:
    """One loop over all the axes, shared among the threads if `parallel`."""
    count = total([axis.extent for axis in axes])
    if all(is_one(axis.extent) for axis in axes):
        write({axis.var: index(0) for axis in axes})
        return
    with (shared if parallel else serial)(index(0), simplified(count)) as position:
        values = fused(axes, position)
        write({var: T.Bind(value) for var, value in values.items()})


def simplified(expression: Any) -> Any:
    """The expression in TVM's canonical form."""
    from tvm.sym import Analyzer

    return Analyzer().simplify(expression)


def in_lanes(extent: Any, lanes: int, write: Callable[[Any], None], again: bool = True) -> None:
    """A loop in vectors of `lanes`: ``write(i)`` for all i below `extent`.

    Args:
        extent: how many.
        lanes: elements at a time.
        write: emits the statements for one element.
        again: elements may be computed twice (with the same result). Then the last vector overlaps
            the one before and there is no scalar loop unless there are fewer than `lanes`.
    """
    known = constant(extent)
    with (
        serial(index(0), simplified(extent // lanes)) as block,
        vectorized(index(0), index(lanes)) as lane,
    ):
        write(block * lanes + lane)
    if known is not None and known % lanes == 0:
        return

    def scalar() -> None:
        with serial(simplified(extent // lanes * lanes), extent) as i:
            write(i)

    def overlapping() -> None:
        with vectorized(index(0), index(lanes)) as lane:
            write(extent - lanes + lane)

    if not again or (known is not None and known < lanes):
        scalar()
    elif known is not None:
        overlapping()
    else:
        with T.If(extent < lanes):
            with T.Then():
                scalar()
            with T.Else(), T.If(extent % lanes > 0), T.Then():
                overlapping()


def store(stage: Stage, value: Any, values: dict[Any, Any]) -> None:
    """Store a value where the stage writes at these values of its axes."""
    T.buffer_store(stage.buffer, value, [substitute(place, values) for place in stage.indices])


def linear(axes: Sequence[Axis], values: dict[Any, Any]) -> Any:
    """The position of the axes' values in one loop over all of them."""
    position: Any = index(0)
    for axis in axes:
        position = position * axis.extent + values[axis.var]
    return position


def at(buffer: Any, offset: Any) -> Any:
    """An element of a row-major buffer by its offset, which the last index takes whole."""
    return buffer[(*(index(0) for _ in list(buffer.ty.shape)[1:]), offset)]
