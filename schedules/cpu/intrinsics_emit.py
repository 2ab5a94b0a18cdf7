"""Small words for writing kernels of vectors with TVM's builder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from tvm import tirx
from tvm.ir import prim
from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script import builder as T

#: A size: a number or a primitive expression.
Extent: TypeAlias = Any

#: Attributes of finished kernels: schedulers leave them alone, and fusion takes them as opaque.
FINISHED: dict[str, Any] = {"tirx.is_scheduled": True, "tirx.noalias": True, "op_pattern": 8}


def kernel(name: str, write: Callable[[], Callable[[], None]]) -> Any:
    """A PrimFunc: `write` declares its arguments and gives what emits its statements.

    The statements are one opaque block, the only form that Relax's passes over functions take.
    """
    with IRBuilder() as builder:
        with T.prim_func(s_tir=True):
            T.func_name(name)
            T.func_attr(FINISHED)
            body = write()
            with T.sblock("root"):
                T.reads()
                T.writes()
                body()
        return builder.get()


def bound(sizes: Sequence[int | None]) -> list[Extent]:
    """The sizes, with a variable for each that is known only at run time."""
    return [
        index(size) if size is not None else tirx.Var(f"d{number}", "int64")
        for number, size in enumerate(sizes)
    ]


def index(value: int) -> Any:
    """A constant index."""
    return prim.IntImm("int64", value)


def constant(size: Extent) -> int | None:
    """The number that a size is, or None."""
    if isinstance(size, int):
        return size
    return int(size.value) if isinstance(size, prim.IntImm) else None


def product(sizes: Sequence[Extent]) -> Extent:
    """The product, as one constant where all are."""
    known = 1
    result: Any = None
    for size in sizes:
        number = constant(size)
        if number is not None:
            known *= number
        else:
            result = size if result is None else result * size
    if result is None:
        return index(known)
    return result if known == 1 else result * index(known)


def flat(buffer: Any, count: Extent) -> Any:
    """The same memory as one dimension."""
    return T.decl_buffer((count,), buffer.dtype, data=buffer.data)


def local(count: int, dtype: str) -> Any:
    """A buffer that LLVM keeps in registers while all its indices are known."""
    return T.alloc_buffer((count,), dtype, scope="local", layout=None)


def lanes_of(buffer: Any, lanes: int, start: Any = 0) -> Any:
    """`lanes` neighbours of a flat buffer as a vector."""
    return buffer[ramp(start, lanes)]


def ramp(start: Any, lanes: int) -> Any:
    """Consecutive indices."""
    if lanes == 1:
        return index(start) if isinstance(start, int) else start
    if isinstance(start, int):
        start = index(start)
    return tirx.Ramp(start, tirx.const(1, start.ty.dtype), lanes)


def store(buffer: Any, lanes: int, value: Any, start: Any = 0) -> None:
    """Store a vector to neighbours of a flat buffer."""
    T.buffer_store(buffer, value, [ramp(start, lanes)])


def fill(buffer: Any, count: int, value: float) -> None:
    """Store one number `count` times from the start of a flat buffer."""
    number = tirx.const(value, str(buffer.dtype))
    store(buffer, count, tirx.Broadcast(number, count) if count > 1 else number)
