"""Activations become bit planes: quantized and packed in one kernel, a warp for each row.

The codes are those of ``fewbits.fake_quantize`` to the bit: a scale for all rows is given, or each
row's is its largest magnitude over the encoding's reach (spec 2).
"""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

from tvm import tirx
from tvm.ir import prim
from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script import builder

from ..architecture import Architecture
from ..host import Parameter, host_function
from ..intrinsics.bits import ballot
from ..intrinsics.registers import held
from ..parameters import launch, long
from ..template import Kernel
from .encoding import Encoding, words

#: TVM's builder; its annotations are narrower than what it gives.
T: Any = builder

_WARPS = 4
_SMALLEST = 2.0**-126


@dataclasses.dataclass(frozen=True)
class PackRows:
    """x [M, K] float -> planes uint32 [M, bits, words(K)] and, per row, scales [M] float32.

    Attributes:
        columns: K.
        source: dtype of x: ``float16``, ``bfloat16`` or ``float32``.
        encoding: what the bits mean; codes of one sign bit have no zero and are refused.
        minimum, maximum: of the integers.
        reach: the largest magnitude divided by this is the scale.
        scales: ``static``: a parameter [1] after x; ``token``: found at run time, a result.
    """

    columns: int
    source: str
    encoding: Encoding
    minimum: int
    maximum: int
    reach: float
    scales: Literal["static", "token"]

    @property
    def key(self) -> str:
        """Text that equal kernels share."""
        return (
            f"pack {self.source} K={self.columns} {self.encoding.key} "
            f"{self.minimum}..{self.maximum} {self.reach} {self.scales}"
        )

    def parameters(self, rows: Any) -> list[Parameter]:
        """x, [scale], planes, [scales]."""
        shape = (rows, self.encoding.bits, words(self.columns))
        x: Parameter = ("x", (rows, self.columns), self.source)
        planes: Parameter = ("planes", shape, "uint32")
        if self.scales == "static":
            return [x, ("scale", (1,), "float32"), planes]
        return [x, planes, ("scales", (rows,), "float32")]


def pack_rows(problem: PackRows, architecture: Architecture, name: str) -> tuple[Kernel, Any]:
    """The kernel, and the function on the host that launches it."""
    with IRBuilder() as function:
        with T.prim_func():
            T.func_name(name)
            T.func_attr({"global_symbol": name})
            _emit(problem)
        made = function.get()
    caller = host_function(
        f"{name}_call",
        architecture,
        problem.parameters(tirx.Var("m", "int64")),
        lambda call: call(name),
    )
    return Kernel(name, made, architecture, "tirx"), caller


def _emit(problem: PackRows) -> None:
    rows = tirx.Var("m", "int64")
    buffers = {
        name: T.arg(name, T.buffer(shape, dtype)) for name, shape, dtype in problem.parameters(rows)
    }
    x, planes = buffers["x"], buffers["planes"]
    block, thread = launch((rows + (_WARPS - 1)) // _WARPS, 32 * _WARPS)
    lane = held(thread % 32)
    row = held(long(block) * _WARPS + long(thread // 32))
    encoding = problem.encoding

    def at(column: Any) -> Any:
        value = x[row, column]
        return value if problem.source == "float32" else tirx.Cast("float32", value)

    with T.If(row < rows), T.Then():
        scale = (
            held(buffers["scale"][0]) if problem.scales == "static" else _scale(problem, at, lane)
        )
        if problem.scales == "token":
            with T.If(lane == 0), T.Then():
                T.buffer_store(buffers["scales"], scale, [row])
        with T.serial(words(problem.columns)) as word:
            column = held(word * 32 + lane)
            value = at(tirx.min(column, problem.columns - 1)) / scale
            low, high = _float(problem.minimum), _float(problem.maximum)
            value = tirx.max(tirx.min(tirx.nearbyint(value), high), low)
            code = tirx.Cast("uint32", encoding.code(tirx.Cast("int32", value)))
            code = tirx.if_then_else(column < problem.columns, code, tirx.const(0, "uint32"))
            code = held(code)
            mine = held(tirx.const(0, "uint32"))
            for plane in range(encoding.bits):
                bit = (code >> tirx.const(plane, "uint32")) & tirx.const(1, "uint32")
                mine = held(tirx.Select(lane == plane, held(ballot(bit)), mine))
            with T.If(lane < encoding.bits), T.Then():
                T.buffer_store(planes, mine, [row, lane, word])


def _scale(problem: PackRows, at: Any, lane: Any) -> Any:
    """The row's largest magnitude over the reach; all lanes get it."""
    largest = T.alloc_buffer((1,), "float32", scope="local")
    T.buffer_store(largest, _float(0), [0])
    with T.serial(-(-problem.columns // 32)) as step:
        column = tirx.min(step * 32 + lane, problem.columns - 1)
        T.buffer_store(largest, tirx.max(largest[0], tirx.abs(at(column))), [0])
    total: Any = largest[0]
    for distance in (1, 2, 4, 8, 16):
        total = held(total)
        other = tirx.call_pure_extern(
            "float32", "__shfl_xor_sync", tirx.const(0xFFFFFFFF, "uint32"), total, distance
        )
        total = held(tirx.max(total, other))
    return held(tirx.max(total / _float(problem.reach), _float(_SMALLEST)))


def _float(value: float) -> Any:
    return prim.FloatImm("float32", float(value))
