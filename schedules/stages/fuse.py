"""What is computed together: producers written into their consumers, and groups of stages."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import tvm_ffi
from tvm import ir
from tvm.ir import prim
from tvm.sym import Analyzer

from .program import Program, Stage, constant, inlined, loads, total

#: Operations that may be computed again at every use.
_FREE = 2


def inline(program: Program, *, choices: bool = False) -> Program:
    """Write producers into consumers where that adds no work worth mentioning.

    Args:
        program: stages in order.
        choices: also into concatenations, each of whose elements evaluates one branch.

    Returns:
        The same results with fewer stages and intermediates.
    """
    stages = list(program.stages)
    kept = list(program.intermediates)
    for producer in program.stages:
        current = next(stage for stage in stages if stage.buffer.same_as(producer.buffer))
        if not any(buffer.same_as(current.buffer) for buffer in kept):
            continue
        consumers = [stage for stage in stages if _reads(stage, current)]
        if current.reductions or not current.writes_in_order():
            continue
        chosen = choices and len(consumers) == 1 and _chooses(consumers[0], current)
        if not chosen and not all(_welcome(current, each, len(consumers)) for each in consumers):
            continue
        stages.remove(current)
        stages = [
            dataclasses.replace(stage, value=inlined(stage.value, current))
            if _reads(stage, current)
            else stage
            for stage in stages
        ]
        kept = [buffer for buffer in kept if not buffer.same_as(current.buffer)]
    return Program(tuple(stages), tuple(kept))


def _reads(stage: Stage, producer: Stage) -> bool:
    return any(load.source.same_as(producer.buffer) for load in loads(stage.value))


def _chooses(stage: Stage, producer: Stage) -> bool:
    """Whether an element is one of several values, and the producer's in one branch at most."""
    value = stage.value
    times = 0
    while isinstance(value, ir.Call) and str(value.op.name) == "prim.if_then_else":
        _, branch, value = value.args
        for each in loads(branch):
            times += each.source.same_as(producer.buffer)
    times += sum(each.source.same_as(producer.buffer) for each in loads(value))
    return not stage.reductions and not value.same_as(stage.value) and times == 1


def _welcome(producer: Stage, consumer: Stage, consumers: int) -> bool:
    """Whether the consumer may compute the producer's formula itself."""
    moves = isinstance(producer.value, (ir.TensorLoad, prim.IntImm, prim.FloatImm))
    if moves:
        return True
    times = sum(load.source.same_as(producer.buffer) for load in loads(consumer.value))
    if consumer.reductions and not _is_plain_sum(consumer):
        return False
    if operations(producer.value) <= _FREE and not consumer.reductions:
        return True
    if consumers > 1 or times > 1:
        return False
    return _same_work(producer, consumer)


def _is_plain_sum(stage: Stage) -> bool:
    return not isinstance(stage.value, prim.Mul) or len(loads(stage.value)) != 2


def _same_work(producer: Stage, consumer: Stage) -> bool:
    """Whether the consumer evaluates its formula as often as the producer did."""
    ours = total([axis.extent for axis in producer.axes])
    theirs = total([axis.extent for axis in consumer.axes])
    known = constant(ours), constant(theirs)
    if None not in known:
        return known[0] == known[1]
    if tvm_ffi.structural_equal(ours, theirs, map_free_vars=False):
        return True
    return bool(Analyzer().can_prove_equal(ours, theirs))


def operations(value: Any) -> int:
    """The cost of an expression in simple operations, without its index arithmetic."""
    count = 0

    def visit(node: Any) -> Any:
        nonlocal count
        if isinstance(node, ir.TensorLoad):
            return tvm_ffi.WalkResult.SKIP
        if isinstance(node, ir.Call):
            count += 16
        elif isinstance(node, (prim.Div, prim.Mod, prim.FloorDiv, prim.FloorMod)):
            count += 4
        elif isinstance(node, prim.BinaryOpExpr):
            count += 1
        return None

    tvm_ffi.structural_walk(value, [(ir.Expr, visit)], order="pre")
    return count


def by_buffer(stages: Sequence[Stage], buffer: Any) -> list[Stage]:
    """The stages that read a buffer."""
    return [s for s in stages if any(load.source.same_as(buffer) for load in loads(s.value))]
