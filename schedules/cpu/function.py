"""One PrimFunc: read as stages, grouped, and written again as fast loops."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tvm import s_tir, tirx
from tvm.tirx.script import builder as T

from .emit import function_body
from .fuse import by_buffer, inline
from .machine import Machine
from .rows import common_axes, emit_rows
from .stages import Stage, read
from .vector_math import expand

#: Functions with this attribute have a schedule.
SCHEDULED = "tirx.is_scheduled"


def schedule_function(function: tirx.PrimFunc, machine: Machine) -> tirx.PrimFunc | None:
    """The function with loops for this machine, or None where it has no form known here."""
    program = read(function)
    if program is None:
        return None
    program = inline(program)
    groups = _groups(program.stages)

    def write() -> None:
        private = [_private(group, program.stages, program.intermediates) for group in groups]
        shared = [common_axes(group) for group in groups]
        inside = {
            buffer for mine, axes in zip(private, shared, strict=True) for buffer in mine if axes
        }
        for buffer in program.intermediates:
            if buffer not in inside:
                T.add_to_parent(tirx.AllocBuffer(buffer, {}))
        for group, mine, axes in zip(groups, private, shared, strict=True):
            emit_rows(group, axes, mine if axes else [], machine)

    return scheduled(function, function_body(write))


def scheduled(function: tirx.PrimFunc, body: Any) -> tirx.PrimFunc:
    """The function with finished loops as its body."""
    root = s_tir.SBlock([], [], [], "root", expand(body))
    realized = s_tir.SBlockRealize([], True, root)
    return function.with_body(realized).with_attr(SCHEDULED, True)


def _groups(stages: Sequence[Stage]) -> list[list[Stage]]:
    groups: list[list[Stage]] = []
    for stage in stages:
        if groups and common_axes([*groups[-1], stage]) > 0:
            groups[-1].append(stage)
        else:
            groups.append([stage])
    return groups


def _private(
    group: Sequence[Stage], stages: Sequence[Stage], intermediates: Sequence[Any]
) -> list[Any]:
    """Intermediates that no other group reads."""
    mine = {id(stage) for stage in group}
    others = [stage for stage in stages if id(stage) not in mine]
    return [
        buffer
        for buffer in intermediates
        if any(stage.buffer.same_as(buffer) for stage in group) and not by_buffer(others, buffer)
    ]
