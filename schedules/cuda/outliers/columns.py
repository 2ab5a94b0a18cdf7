"""From a mask of columns to their list: what the product walks over."""

from __future__ import annotations

from typing import Any

from tvm import tirx
from tvm.backend.cuda.op import cuda_func_call
from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script import builder

from ..architecture import Architecture
from ..host import Parameter, host_function
from ..intrinsics.registers import held
from ..parameters import launch
from ..template import Kernel

#: TVM's builder; its annotations are narrower than what it gives.
T: Any = builder

_VOTE = """
__device__ __forceinline__ int fewbits_vote(int here) {
  return (int)__ballot_sync(0xffffffffu, here);
}
"""
_COUNT = """
__device__ __forceinline__ int fewbits_count(int word) { return __popc((unsigned)word); }
"""


def parameters(columns: int) -> list[Parameter]:
    """mask, list, count."""
    return [
        ("mask", (columns,), "float32"), ("list", (columns,), "int32"), ("count", (1,), "int32"),
    ]  # fmt: skip


def list_columns(columns: int, architecture: Architecture, name: str) -> tuple[Kernel, Any]:
    """The kernel and its caller: mask [K] float32 -> list [K] int32, count [1] int32.

    The places where the mask is not 0, ascending; what follows them in the list is not written.
    One warp votes on 32 columns at a time, so the order does not depend on timing.
    """
    with IRBuilder() as ir_builder:
        with T.prim_func():
            T.func_name(name)
            T.func_attr({"global_symbol": name})
            mask, places, count = (
                T.arg(title, T.buffer(shape, dtype)) for title, shape, dtype in parameters(columns)
            )
            _, lane = launch(tirx.const(1, "int64"), 32)
            found = T.alloc_buffer((1,), "int32", scope="local")
            T.buffer_store(found, 0, [0])
            with T.serial(-(-columns // 32)) as step:
                column = held(step * 32 + lane)
                value = mask[tirx.min(column, columns - 1)]
                kept = tirx.all(column < columns, value != tirx.const(0.0, "float32"))
                here = held(tirx.Cast("int32", kept))
                votes = held(_call("fewbits_vote", here, _VOTE))
                below = votes & ((tirx.const(1, "int32") << lane) - 1)
                place = held(found[0] + _call("fewbits_count", below, _COUNT))
                with T.If(here != 0), T.Then():
                    T.buffer_store(places, column, [place])
                T.buffer_store(found, found[0] + _call("fewbits_count", votes, _COUNT), [0])
            with T.If(lane == 0), T.Then():
                T.buffer_store(count, found[0], [0])
        function = ir_builder.get()
    kernel = Kernel(name, function, architecture, "tirx")
    caller = host_function(
        f"{name}_call", architecture, parameters(columns), lambda call: call(name)
    )
    return kernel, caller


def _call(name: str, argument: Any, source: str) -> Any:
    return cuda_func_call(name, argument, source_code=source, return_type="int32")
