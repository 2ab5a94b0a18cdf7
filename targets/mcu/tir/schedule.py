"""A schedule for one core with little memory: no large intermediates, accumulators in registers.

Every step is one TIR schedule primitive, so the program's meaning is TVM's responsibility; what is
decided here is only which producer is worth recomputing and how deep it can sit in its consumer's
loops without being computed twice.
"""

from __future__ import annotations

import contextlib
import math

import tvm_ffi
from tvm import ir, s_tir, tirx
from tvm.ir import prim
from tvm.s_tir.schedule import SBlockRV, Schedule, ScheduleError

from ....ops.compressed.legalize import DECODED, STAGE

#: A producer is recomputed at every use where that adds at most this many operations.
RECOMPUTED_OPERATIONS = 4
_ROOT = "fewbits.root"
_COSTS = {prim.Add: 1, prim.Sub: 1, prim.Mul: 1, prim.Max: 1, prim.Min: 1}
_DIVISIONS = (prim.Div, prim.Mod, prim.FloorDiv, prim.FloorMod)
_DIVISION_COST = 8
_CALL_COST = 16
_FREE_CALLS = frozenset({"if_then_else", "likely", "reinterpret", "fabs"})
#: Below these there are indices and tests of indices, not values.
_NO_VALUES = (ir.TensorLoad, prim.CmpExpr, prim.LogicalExpr)


def schedule(function: tirx.PrimFunc) -> tirx.PrimFunc:
    """Inline what only moves data, compute the rest where it is needed, split off initial values.

    Blocks that TIR schedules cannot handle (loops written by hand in a legalization) stay as they
    are.
    """
    begun = _begin(function)
    if begun is None:
        return function
    sch, root = begun
    _stage_reductions(sch, root)
    _inline(sch, root)
    _reduced_last(sch, root)
    _weights_first(sch, root)
    _sink(sch, root)
    _initialize_outside(sch, root)
    return sch.mod["main"]


def fuse_loops(function: tirx.PrimFunc) -> tirx.PrimFunc | None:
    """The function with its only loop nest as one flat loop; None where there are several."""
    begun = _begin(function)
    if begun is None:
        return None
    sch, root = begun
    blocks = sch.get_child_blocks(root)
    if len(blocks) != 1 or sch.get(blocks[0]).init is not None:
        return None
    loops = sch.get_loops(blocks[0])
    if len(loops) < 2:
        return None
    try:
        sch.fuse(*loops)
    except ScheduleError:
        return None
    return sch.mod["main"]


def multiply_accumulates(function: tirx.PrimFunc) -> int:
    """Multiplications that are summed up, of a legalized function."""
    begun = _begin(function)
    if begun is None:
        return 0
    sch, root = begun
    total = 0
    for block in sch.get_child_blocks(root):
        body = sch.get(block).body
        if sch.get(block).init is None or not isinstance(body, tirx.BufferStore):
            continue
        if not isinstance(body.value, prim.Add):
            continue
        term = body.value.b
        while isinstance(term, prim.Cast):
            term = term.value
        if isinstance(term, prim.Mul):
            total += int(_iterations(sch, block))
    return total


def _begin(function: tirx.PrimFunc) -> tuple[Schedule, SBlockRV] | None:
    """A schedule and its root block, None for a function that is no block."""
    body = function.body
    if not isinstance(body, s_tir.SBlockRealize):
        return None
    block = body.block
    # Blocks are found by name, and a legalization may have called one of its own "root".
    renamed = s_tir.SBlock(
        block.iter_vars,
        block.reads,
        block.writes,
        _ROOT,
        block.body,
        block.init,
        block.alloc_buffers,
        block.match_buffers,
        block.annotations,
    )
    realize = s_tir.SBlockRealize(body.iter_values, body.predicate, renamed)
    module = ir.IRModule({"main": function.with_body(realize)})
    sch = Schedule(module, error_render_level="none")
    return sch, sch.get_sblock(_ROOT)


def _iterations(sch: Schedule, block: SBlockRV) -> float:
    """How often a block runs; infinite where that depends on an outer loop."""
    extents = [sch.get(loop).extent for loop in sch.get_loops(block)]
    if not all(isinstance(extent, prim.IntImm) for extent in extents):
        return math.inf
    return math.prod(int(extent) for extent in extents)


def _stage_reductions(sch: Schedule, root: SBlockRV) -> None:
    """A reduction into an output gets an accumulator of its own, copied when it is done."""
    for block in sch.get_child_blocks(root):
        if sch.get(block).init is None or sch.get_consumers(block):
            continue
        try:
            sch.cache_write(block, 0, "global")
        except ScheduleError:
            continue


def _inline(sch: Schedule, root: SBlockRV) -> None:
    for block in sch.get_child_blocks(root):
        consumers = sch.get_consumers(block)
        body = sch.get(block)
        if not consumers or body.init is not None or STAGE in body.annotations:
            continue
        produced = max(_iterations(sch, block), 1)
        uses = sum(_iterations(sch, consumer) for consumer in consumers) / produced
        extra = _cost(body) * max(uses - 1, 0)
        if extra <= RECOMPUTED_OPERATIONS:
            try:
                sch.compute_inline(block)
            except ScheduleError:
                continue
            if DECODED in body.annotations and sch.get(consumers[0]).init is None:
                # What only moves the weights now decodes them.
                for consumer in consumers:
                    sch.annotate(consumer, DECODED, 1)


def _cost(block: s_tir.SBlock) -> int:
    """Operations of one execution: of floats, of 64-bit integers, divisions by what is not
    constant. Comparisons, moves and 32-bit integer arithmetic count as free."""
    total = 0

    def visit(node: ir.Expr) -> tvm_ffi.WalkResult:
        nonlocal total
        if isinstance(node, _NO_VALUES):
            return tvm_ffi.WalkResult.SKIP
        dtype = str(getattr(node.ty, "dtype", ""))
        wide = dtype.startswith("float") or dtype == "int64"
        if isinstance(node, ir.Call):
            name = str(getattr(node.op, "name", "")).split(".")[-1]
            total += 0 if name in _FREE_CALLS else _CALL_COST
        elif isinstance(node, _DIVISIONS):
            total += _DIVISION_COST if wide or not isinstance(node.b, prim.IntImm) else 0
        elif wide:
            total += _COSTS.get(type(node), 0)
        return tvm_ffi.WalkResult.ADVANCE

    def store(node: tirx.BufferStore) -> None:
        tvm_ffi.structural_walk(node.value, [(ir.Expr, visit)], order="pre")

    tvm_ffi.structural_walk(block.body, [(tirx.BufferStore, store)])
    return total


def _reduced_last(sch: Schedule, root: SBlockRV) -> None:
    """Of an output that needs reductions over some of its axes, loop over the other axes outside.

    A softmax over channels then has intermediates of one pixel instead of the whole image.
    """
    reductions = {
        region.source
        for block in sch.get_child_blocks(root)
        if sch.get(block).init is not None
        for region in sch.get(block).writes
    }
    for block in sch.get_child_blocks(root):
        body, loops = sch.get(block), sch.get_loops(block)
        if sch.get_consumers(block) or body.init is not None or len(loops) != len(body.iter_vars):
            continue
        kept: set[int] | None = None

        def visit(load: ir.TensorLoad, body: s_tir.SBlock = body) -> None:
            nonlocal kept
            if load.source in reductions:
                places = {
                    position
                    for position, variable in enumerate(body.iter_vars)
                    if any(variable.var.same_as(index) for index in load.indices)
                }
                kept = places if kept is None else kept & places

        tvm_ffi.structural_walk(body.body, [(ir.TensorLoad, visit)])
        if kept and max(kept) != len(kept) - 1:
            order = [*sorted(kept), *(i for i in range(len(loops)) if i not in kept)]
            with contextlib.suppress(ScheduleError):
                sch.reorder(*(loops[position] for position in order))


def _weights_first(sch: Schedule, root: SBlockRV) -> None:
    """Of a product with decoded weights, loop over the output channels outside.

    The weights of one channel are then decoded, used for all rows and forgotten.
    """
    for weights in sch.get_child_blocks(root):
        if DECODED not in sch.get(weights).annotations:
            continue
        for product in sch.get_consumers(weights):
            body = sch.get(product)
            channels = _indices_of(body, sch.get(weights).writes[0].source)
            if body.init is None or not channels:
                continue
            # The accumulator is moved into the loops of the block that copies it out.
            for block in (product, *sch.get_consumers(product)):
                loops = sch.get_loops(block)
                if len(loops) == len(sch.get(block).iter_vars) > max(channels):
                    order = [*channels, *(i for i in range(len(loops)) if i not in channels)]
                    with contextlib.suppress(ScheduleError):
                        sch.reorder(*(loops[position] for position in order))


def _indices_of(block: s_tir.SBlock, source: ir.Var) -> list[int]:
    """Positions of the block's spatial iterators with which it reads a buffer."""
    variables = [one.var for one in block.iter_vars if one.iter_type == one.DataPar]
    found: set[int] = set()

    def visit(load: ir.TensorLoad) -> None:
        if load.source.same_as(source):
            found.update(
                position
                for position, variable in enumerate(variables)
                if any(variable.same_as(index) for index in load.indices)
            )

    tvm_ffi.structural_walk(block.body, [(ir.TensorLoad, visit)])
    return sorted(found)


def _sink(sch: Schedule, root: SBlockRV) -> None:
    """Move each producer into its consumers' loops, as deep as goes without computing more."""
    for block in reversed(sch.get_child_blocks(root)):
        consumers = sch.get_consumers(block)
        if not consumers:
            continue
        before = _iterations(sch, block)
        shared = sch.get_loops(consumers[0])
        for other in consumers[1:]:
            theirs = [sch.get(loop) for loop in sch.get_loops(other)]
            common = 0
            while common < min(len(shared), len(theirs)) and sch.get(shared[common]).same_as(
                theirs[common]
            ):
                common += 1
            shared = shared[:common]
        for depth in range(len(shared) - 1, -1, -1):
            trial = sch.copy()
            try:
                trial.compute_at(block, shared[depth])
            except ScheduleError:
                continue
            if _iterations(trial, block) <= before:
                sch.compute_at(block, shared[depth])
                break


def _initialize_outside(sch: Schedule, scope: SBlockRV) -> None:
    """Set accumulators before the reduction's loops instead of testing inside them."""
    for block in sch.get_child_blocks(scope):
        _initialize_outside(sch, block)
        if sch.get(block).init is None:
            continue
        for loop in reversed(sch.get_loops(block)):
            try:
                sch.decompose_reduction(block, loop)
            except ScheduleError:
                continue
            break
