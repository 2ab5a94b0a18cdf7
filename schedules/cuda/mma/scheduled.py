"""The same product as a schedule, for MetaSchedule to search: tiles are sampled decisions.

The kernel generator (`kernel`) knows one pipeline and one swizzle; a schedule can be changed step
by step, and its trace says what was done. Its meaning is that of the product as plain loops, so it
runs on the CPU (`meaning`). The number of rows must be known, as MetaSchedule asks for it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from tvm import IRModule, s_tir, te

from ..architecture import Architecture
from ..epilogue import Operand
from ..intrinsics.mma import KINDS, Kind
from ..intrinsics.mma_tensorize import (
    SIDE,
    intrinsics,
    left_place,
    right_place,
    sum_place,
    terms,
)
from ..parameters import operand_shape
from ..problem import Linear
from ..template import Kernel

#: Bytes of a vector load, and of the padding that keeps ``ldmatrix`` free of bank conflicts.
_VECTOR = 16


#: How schedules are lowered: after TVM's elimination of common subexpressions, it cannot tell the
#: lanes of a fragment from a lane's registers.
OPTIONS: tuple[tuple[str, Any], ...] = (("tirx.disable_cse_tir", True),)


@dataclasses.dataclass(frozen=True)
class Decisions:
    """What a search decides: factors of the tiles of 16 rows, 16 columns, and 32 bytes along K.

    Attributes:
        rows: tiles of the grid, of warps, and of a warp.
        columns: the same.
        depth: steps, and tiles of a step.
    """

    rows: tuple[int, int, int]
    columns: tuple[int, int, int]
    depth: tuple[int, int]


def searchable(problem: Linear, rows: int) -> bool:
    """Whether tiles of 16 rows, 16 columns and 32 bytes along K fill the product."""
    kind = KINDS[problem.activation]
    return not (rows % SIDE or problem.outputs % SIDE or problem.inputs % terms(kind))


def product(problem: Linear, rows: int) -> Any:
    """The product as plain loops, a PrimFunc: no threads, no instructions.

    Raises:
        ValueError: it is not `searchable`.
    """
    if not searchable(problem, rows):
        raise ValueError(f"{rows} rows of {problem.key} are no whole tiles")
    kind = KINDS[problem.activation]
    inputs, outputs = problem.inputs, problem.outputs
    x = te.placeholder((rows, inputs), problem.activation, name="x")
    weight = te.placeholder((outputs, inputs), problem.activation, name="weight")
    k = te.reduce_axis((0, inputs), name="k")
    total = te.compute(
        (rows, outputs),
        lambda i, j: te.sum(
            x[i, k].astype(kind.accumulator) * weight[j, k].astype(kind.accumulator), axis=k
        ),
        name="total",
    )
    operands = [
        te.placeholder(operand_shape(o, rows, outputs), o.dtype, name=f"{o.extends}{place}")
        for place, o in enumerate(problem.epilogue.operands)
    ]

    def finished(i: Any, j: Any) -> Any:
        pairs = zip(problem.epilogue.operands, operands, strict=True)
        elements = [_element(operand, source, i, j) for operand, source in pairs]
        return problem.epilogue.at(total[i, j], elements)

    y = te.compute((rows, outputs), finished, name="y")
    return te.create_prim_func([x, weight, *operands, y]).with_attr("global_symbol", "main")


def _element(operand: Operand, source: Any, i: Any, j: Any) -> Any:
    places = {"row": (i,), "column": (j,), "matrix": (i, j), "one": (0,)}
    return source[places[operand.extends]]


def fixed_rows_kernel(
    problem: Linear, rows: int, architecture: Architecture, decisions: Decisions, name: str
) -> Kernel:
    """The kernel for one number of rows and one choice of tiles; nothing is searched.

    Raises:
        ValueError: the product is not `searchable` with these rows.
    """
    module = IRModule({"main": product(problem, rows)})
    sch = s_tir.Schedule(module, debug_mask=0)
    schedule(sch, problem.activation, decisions)
    return Kernel(
        name=name,
        function=sch.mod["main"].with_attr("global_symbol", name),
        architecture=architecture,
        pipeline="s_tir",
        instruction=KINDS[problem.activation].machine,
        options=OPTIONS,
    )


def schedule(sch: s_tir.Schedule, dtype: str, decisions: Decisions | None = None) -> None:
    """Give the product's loops to blocks, warps and tensor cores.

    Args:
        sch: holds `product`'s function.
        dtype: of the operands.
        decisions: the tiles; None samples them, for a search.
    """
    kind, names = KINDS[dtype], intrinsics(dtype)
    deep = terms(kind)
    total = sch.get_sblock("total")
    i, j, k = sch.get_loops(total)
    i, i_in = sch.split(i, [None, SIDE])
    j, j_in = sch.split(j, [None, SIDE])
    k, k_in = sch.split(k, [None, deep])
    sch.reorder(i, j, k, i_in, j_in, k_in)
    inner, outer = total, sch.blockize(i_in)
    fixed = decisions or _Sampled()
    i_tiles = sch.sample_perfect_tile(i, 3, 4, _listed(fixed.rows))
    j_tiles = sch.sample_perfect_tile(j, 3, 8, _listed(fixed.columns))
    k_tiles = sch.sample_perfect_tile(k, 2, 4, _listed(fixed.depth))
    i0, i1, i2 = sch.split(i, i_tiles)
    j0, j1, j2 = sch.split(j, j_tiles)
    k0, k1 = sch.split(k, k_tiles)
    sch.reorder(i0, j0, i1, j1, k0, k1, i2, j2)
    grid = sch.fuse(i0, j0)
    sch.bind(grid, "blockIdx.x")
    sch.bind(i1, "threadIdx.z")
    sch.bind(j1, "threadIdx.y")
    for place in (j1, outer):
        sch.annotate(place, "warp_execution", 1)
    # nvcc unrolls what is marked, not TVM, which could not tell lanes from registers any more.
    sch.annotate(j1, "pragma_auto_unroll_max_step", 0)
    sch.annotate(j1, "pragma_unroll_explicit", 0)
    for place in (0, 1):
        tile = sch.cache_read(outer, place, "shared.dyn")
        _stage(sch, tile, k0, i_tiles[1], j_tiles[1], deep, kind.bytes)
    fragments = [sch.cache_read(outer, place, "warp") for place in (0, 1)]
    for fragment in fragments:
        sch.compute_at(fragment, k1)
    sch.set_scope(total, 0, "warp")
    _finish(sch, j1)
    fill = sch.decompose_reduction(outer, k0)
    loads = [_tiles(sch, fragment, SIDE, deep) for fragment in fragments]
    around = [loop for fragment in fragments for loop in sch.get_loops(fragment)[-4:-2]]
    for loop in (k1, i2, j2, *around, *sch.get_loops(fill)[-2:]):
        sch.unroll(loop)
    for fragment, place in zip(fragments, (left_place, right_place), strict=True):
        sch.transform_layout(fragment, ("write", 0), _fragments(place, kind, deep))
    sch.transform_layout(
        outer, ("write", 0), lambda a, b: (a // SIDE, b // SIDE, *sum_place(a % SIDE, b % SIDE))
    )
    sch.tensorize(loads[0], names.left)
    sch.tensorize(loads[1], names.right)
    sch.tensorize(sch.get_loops(inner)[-3], names.multiply)
    sch.tensorize(sch.get_loops(sch.get_sblock("total_init"))[-2], names.fill)


class _Sampled:
    """No decisions: the schedule samples."""

    rows = columns = depth = None


def _listed(factors: tuple[int, ...] | None) -> list[int] | None:
    return None if factors is None else list(factors)


def _fragments(place: Callable[..., tuple[Any, Any]], kind: Kind, deep: int) -> Any:
    """A matrix's index map to its tiles' fragments."""

    def index(a: Any, b: Any) -> tuple[Any, ...]:
        return (a // SIDE, b // deep, *place(kind, a % SIDE, b % deep))

    return index


def _tiles(sch: s_tir.Schedule, block: Any, rows: int, columns: int) -> Any:
    """Split a block's last two loops into tiles; the outermost loop within one."""
    i, j = sch.get_loops(block)[-2:]
    i0, i1 = sch.split(i, [None, rows])
    j0, j1 = sch.split(j, [None, columns])
    sch.reorder(i0, j0, i1, j1)
    return i1


def _stage(
    sch: s_tir.Schedule, block: Any, at: Any, down: Any, across: Any, deep: int, size: int
) -> None:
    """Copy a step's tile to shared memory: all threads together, 16 bytes each at a time."""
    sch.compute_at(block, at)
    sch.storage_align(block, 0, axis=-2, factor=deep, offset=_VECTOR // size)
    loop = sch.fuse(*sch.get_loops(block)[-2:])
    turns, z, y, x, vector = sch.split(loop, [None, down, across, 32, _VECTOR // size])
    sch.bind(z, "threadIdx.z")
    sch.bind(y, "threadIdx.y")
    sch.bind(x, "threadIdx.x")
    sch.vectorize(vector)
    sch.unroll(turns)


def _finish(sch: s_tir.Schedule, at: Any) -> None:
    """The epilogue, on the lanes that hold the sums."""
    block = sch.get_sblock("y")
    sch.reverse_compute_at(block, at)
    i, j = sch.get_loops(block)[-2:]
    i0, half, group = sch.split(i, [None, 2, 8])
    j0, second, pair, one = sch.split(j, [None, 2, 4, 2])
    sch.reorder(i0, j0, half, second, group, pair, one)
    sch.bind(sch.fuse(group, pair), "threadIdx.x")
    for loop in (i0, j0, half, second, one):
        sch.unroll(loop)
