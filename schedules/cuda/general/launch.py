"""What the generators of this folder write kernels with: grids, guards, buffers of a thread."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import tvm_ffi
from tvm import ir, tirx
from tvm.ir import prim
from tvm.script.ir_builder import IRBuilder
from tvm.sym import Analyzer
from tvm.tirx.script import builder as T

from ...stages.program import Axis, constant, is_one

#: Threads of a block where nothing asks for another number.
THREADS = 256


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


def simplified(expression: Any) -> Any:
    """The expression in TVM's canonical form."""
    return Analyzer().simplify(expression)


def ceildiv(value: Any, divisor: int) -> Any:
    """The quotient rounded up, of a positive size."""
    known = constant(value)
    if known is not None:
        return index(-(-known // divisor))
    return simplified((value + (divisor - 1)) // divisor)


@contextlib.contextmanager
def launch(blocks: Any, *threads: int) -> Iterator[tuple[Any, ...]]:
    """One kernel: a grid of `blocks`, each of `threads` along x and then y.

    Yields:
        The block's number and the thread's along each axis, int64 expressions.
    """
    with contextlib.ExitStack() as stack:
        block = stack.enter_context(T.thread_binding(index(0), blocks, thread="blockIdx.x"))
        axes = [
            stack.enter_context(
                T.thread_binding(index(0), index(count), thread=f"threadIdx.{name}")
            )
            for name, count in zip("xyz", threads, strict=False)
        ]
        yield (block, *axes)


@contextlib.contextmanager
def when(condition: Any | None) -> Iterator[None]:
    """The statements run only where the condition holds; always where it is None or known true."""
    if condition is not None:
        condition = simplified(condition)
    if condition is None or (isinstance(condition, prim.IntImm) and int(condition.value) == 1):
        yield
        return
    with T.If(condition), T.Then():
        yield


def registers(count: int, dtype: str) -> Any:
    """A buffer of one thread. With all its indices known it lives in registers."""
    return T.alloc_buffer((count,), dtype, scope="local", layout=None)


def shared_memory(shape: Sequence[int], dtype: str) -> Any:
    """A buffer that the threads of a block share."""
    return T.alloc_buffer(tuple(shape), dtype, scope="shared", layout=None)


def barrier() -> None:
    """All threads of the block arrive before one goes on, and see what the others wrote."""
    T.evaluate(T.tvm_storage_sync("shared"))


def unrolled(count: int, write: Callable[[Any], None]) -> None:
    """``write(i)`` for each i below `count`, all indices known to the compiler."""
    if count == 1:
        write(index(0))
        return
    with T.unroll(index(0), index(count)) as i:
        write(i)


def fused(axes: Sequence[Axis], position: Any) -> dict[Any, Any]:
    """The axes' values at a position of the one loop over all of them, the last fastest."""
    values: dict[Any, Any] = {}
    wide = [axis for axis in axes if not is_one(axis.extent)]
    for number, axis in reversed(list(enumerate(wide))):
        values[axis.var] = position if number == 0 else position % axis.extent
        position = position // axis.extent
    return {axis.var: values.get(axis.var, index(0)) for axis in axes}


def bound(values: dict[Any, Any]) -> dict[Any, Any]:
    """The values computed once, as variables."""
    return {
        var: value if isinstance(value, (ir.Var, prim.IntImm)) else T.Bind(value)
        for var, value in values.items()
    }


def serial_grid(axes: Sequence[Axis], write: Callable[[dict[Any, Any]], None]) -> None:
    """Loops of one thread over the axes; `write` gets the values of their variables."""

    def nest(rest: Sequence[Axis], values: dict[Any, Any]) -> None:
        if not rest:
            write(values)
        elif is_one(rest[0].extent):
            nest(rest[1:], {**values, rest[0].var: index(0)})
        else:
            with T.serial(index(0), rest[0].extent) as i:
                nest(rest[1:], {**values, rest[0].var: i})

    nest(list(axes), {})


def with_loads(node: Any, replace: Callable[[ir.TensorLoad], Any]) -> Any:
    """The expression with its reads of memory replaced."""
    return tvm_ffi.structural_map(node, [(ir.TensorLoad, replace)])


def stored_elsewhere(node: Any, buffers: dict[Any, Any]) -> Any:
    """A statement that uses other buffers of the same shape in place of some."""

    def load(access: ir.TensorLoad) -> Any:
        other = buffers.get(access.source)
        return access if other is None else tirx.BufferLoad(other, list(access.indices))

    def store(statement: tirx.BufferStore) -> Any:
        other = buffers.get(statement.buffer)
        if other is None:
            return statement
        return tirx.BufferStore(other, statement.value, list(statement.indices))

    return tvm_ffi.structural_map(node, [(ir.TensorLoad, load), (tirx.BufferStore, store)])
