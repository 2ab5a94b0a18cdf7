"""The second pass of attention whose keys several blocks share (flash decoding).

Each part of the keys leaves its rows' largest score, their sum of exponentials and their weighted
sum of values. Here they become one result, part after part in order, so that equal inputs give
equal bits.
"""

from __future__ import annotations

import math
from typing import Any

from tvm import tirx
from tvm.ir import prim
from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script import builder

from ..architecture import Architecture
from ..host import Parameter, host_function
from ..intrinsics.registers import exp2, held
from ..parameters import launch, long
from ..template import Kernel
from .problem import Attention

#: TVM's builder; its annotations are narrower than what it gives.
T: Any = builder

_THREADS = 128


def partial_shapes(
    problem: Attention, parts: int, batch: Any, rows: Any
) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """Shapes of what parts leave, float32: weighted sums; largest scores and sums, in pairs."""
    leading = (parts, batch, problem.heads, rows)
    return (*leading, problem.value_size), (*leading, 2)


def combine_parameters(problem: Attention, parts: int, batch: Any, rows: Any) -> list[Parameter]:
    """sums, states, result."""
    sums, states = partial_shapes(problem, parts, batch, rows)
    return [
        ("sums", sums, "float32"),
        ("states", states, "float32"),
        ("result", problem.shape(3, batch, rows), problem.dtype),
    ]


def combine_parts(
    problem: Attention, parts: int, architecture: Architecture, name: str
) -> tuple[Kernel, Any]:
    """The kernel and its caller: sums, states -> result; a thread per element.

    Args:
        problem: whose parts there are.
        parts: how many blocks shared the keys of a row.
        architecture: what it is for.
        name: of the kernel.
    """
    with IRBuilder() as ir_builder:
        with T.prim_func():
            T.func_name(name)
            T.func_attr({"global_symbol": name})
            batch, rows = (tirx.Var(each, "int64") for each in ("batch", "rows"))
            declared = combine_parameters(problem, parts, batch, rows)
            sums, states, result = (
                T.arg(title, T.buffer(shape, dtype)) for title, shape, dtype in declared
            )
            size = batch * problem.heads * rows * problem.value_size
            block, thread = launch((size + (_THREADS - 1)) // _THREADS, _THREADS)
            place = held(long(block) * _THREADS + long(thread))
            with T.If(place < size), T.Then():
                _element(problem, parts, rows, place, (sums, states, result))
        function = ir_builder.get()
    kernel = Kernel(name, function, architecture, "tirx")
    sizes = (tirx.Var(each, "int64") for each in ("batch", "rows"))
    caller = host_function(
        f"{name}_call",
        architecture,
        combine_parameters(problem, parts, *sizes),
        lambda call: call(name),
    )
    return kernel, caller


def _element(
    problem: Attention, parts: int, rows: Any, place: Any, arrays: tuple[Any, Any, Any]
) -> None:
    sums, states, result = arrays
    element = held(place % problem.value_size)
    line = held(place // problem.value_size)
    row, head = held(line % rows), held(line // rows % problem.heads)
    batch = held(line // rows // problem.heads)
    largest, total, weighted = (T.alloc_buffer((1,), "float32", scope="local") for _ in range(3))
    for buffer, start in ((largest, -math.inf), (total, 0.0), (weighted, 0.0)):
        T.buffer_store(buffer, prim.FloatImm("float32", start), [0])
    with T.serial(parts) as part:
        here = states[part, batch, head, row, 0]
        T.buffer_store(largest, tirx.max(largest[0], here), [0])
    with T.serial(parts) as part:
        share = held(exp2(states[part, batch, head, row, 0] - largest[0]))
        T.buffer_store(total, total[0] + share * states[part, batch, head, row, 1], [0])
        value = sums[part, batch, head, row, element]
        T.buffer_store(weighted, weighted[0] + share * value, [0])
    quotient = tirx.Cast(problem.dtype, weighted[0] / total[0])
    at = (batch, head, row, element) if problem.heads_first[3] else (batch, row, head, element)
    T.buffer_store(result, quotient, list(at))
