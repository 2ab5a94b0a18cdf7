"""Reads and writes of 16 bytes at a time, with the arithmetic between them one by one.

CUDA's vector types have no arithmetic worth using. So a thread reads a vector into registers,
computes each element from registers, and writes a vector from registers; nvcc keeps all of it in
registers, since every index is known.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import tvm_ffi
from tvm import ir, tirx
from tvm.ir import prim
from tvm.tirx.script import builder as T

from ...stages.access import flat_offset, step
from ...stages.program import Stage, constant, loads, substitute
from .launch import index, registers, simplified, unrolled, with_loads
from .numbers import cast, dtype_of

#: Bytes of the widest access of one thread.
_WIDEST = 16
_BYTES = {"float32": 4, "int32": 4, "uint32": 4, "float16": 2, "bfloat16": 2, "int16": 2,
          "uint16": 2, "int8": 1, "uint8": 1, "int64": 8, "uint64": 8, "float64": 8,
          "float8_e4m3fn": 1, "float8_e5m2": 1, "bool": 1}  # fmt: skip
#: Types with vectors in CUDA as TVM writes it.
_VECTORS = frozenset({"float32", "int32", "float16", "bfloat16", "int8", "uint8"})


def lanes(stages: Sequence[Stage], inner: Sequence[Any], extent: Any) -> int:
    """How many consecutive elements a thread should handle, a power of two.

    Args:
        stages: elementwise ones, or reductions along memory.
        inner: for each the variable of its axis along memory.
        extent: of that axis.
    """
    known = constant(extent)
    if known is None:
        return 1
    accesses = [
        (variable, buffer, indices)
        for stage, variable in zip(stages, inner, strict=True)
        for buffer, indices in _moving(stage, variable)
    ]
    widest = max((_BYTES.get(dtype_of(buffer), 8) for _, buffer, _ in accesses), default=8)
    count = _WIDEST // widest
    while count > 1 and (known % count or not all(_aligned(*access, count) for access in accesses)):
        count //= 2
    return count


def _moving(stage: Stage, variable: Any) -> Iterator[tuple[Any, Any]]:
    """The accesses of a stage that could be vectors along the variable."""
    for load in unconditional(stage.value):
        if step(load.source, load.indices, variable) == 1:
            yield load.source, load.indices
    if not stage.reductions:
        yield stage.buffer, stage.indices


def _aligned(variable: Any, buffer: Any, indices: Any, count: int) -> bool:
    if dtype_of(buffer) not in _VECTORS:
        return True
    offset = substitute(flat_offset(buffer, indices), {variable: variable * count})
    rest = simplified(tirx.floormod(offset, index(count)))
    return (
        step(buffer, indices, variable) == 1
        and isinstance(rest, prim.IntImm)
        and int(rest.value) == 0
    )


def unconditional(value: Any) -> list[ir.TensorLoad]:
    """The reads that happen whatever the conditions inside the expression are."""
    hidden: list[ir.TensorLoad] = []

    def visit(call: ir.Call) -> None:
        if str(getattr(call.op, "name", "")).endswith("if_then_else"):
            hidden.extend(load for branch in list(call.args)[1:] for load in loads(branch))

    tvm_ffi.structural_walk(value, [(ir.Call, visit)])
    nested = [inner for load in loads(value) for i in load.indices for inner in loads(i)]
    return [
        load
        for load in loads(value)
        if not any(load.same_as(other) for other in (*hidden, *nested))
    ]


def elements(
    value: Any, variable: Any, start: Any, count: int, write: Callable[[Any, Any], None]
) -> None:
    """Emit ``write(n, value at start + n)`` for each n below `count`, reading in vectors.

    Args:
        value: of one element, all other variables substituted.
        variable: runs along memory.
        start: the first position, a multiple of `count`.
        count: what `lanes` said.
        write: gets the index (known when compiled) and the expression.
    """
    if count == 1:
        write(index(0), substitute(value, {variable: start}))
        return
    vectors: list[tuple[ir.TensorLoad, Any]] = []
    for load in unconditional(value):
        fits = dtype_of(load.source) in _VECTORS
        if not fits or step(load.source, load.indices, variable) != 1:
            continue
        if any(tvm_ffi.structural_equal(load, other) for other, _ in vectors):
            continue
        held = registers(count, dtype_of(load.source))
        with T.vectorized(index(0), index(count)) as lane:
            place = {variable: start + lane}
            element = tirx.BufferLoad(load.source, [substitute(i, place) for i in load.indices])
            T.buffer_store(held, element, [lane])
        vectors.append((load, held))

    def one(lane: Any) -> None:
        def replace(load: ir.TensorLoad) -> Any:
            for other, held in vectors:
                if tvm_ffi.structural_equal(load, other):
                    return tirx.BufferLoad(held, [lane])
            return load

        write(lane, substitute(with_loads(value, replace), {variable: start + lane}))

    unrolled(count, one)


def store_elements(
    stage: Stage, variable: Any, start: Any, count: int, held: Any, offset: Any
) -> None:
    """Store `count` registers from `offset` on where the stage writes from `start` on."""
    whole = count > 1 and dtype_of(stage.buffer) in _VECTORS

    def one(lane: Any) -> None:
        place = {variable: start + lane}
        at = [substitute(i, place) for i in stage.indices]
        T.buffer_store(stage.buffer, held[offset + lane], at)

    if whole:
        with T.vectorized(index(0), index(count)) as lane:
            one(lane)
    else:
        unrolled(count, one)


def rounded(held: Any, dtype: str, count: int, offset: Any) -> tuple[Any, Any]:
    """Registers from an offset on in another type, and where they begin."""
    if dtype_of(held) == dtype:
        return held, offset
    result = registers(count, dtype)
    unrolled(count, lambda n: T.buffer_store(result, cast(dtype, held[offset + n]), [n]))
    return result, index(0)
