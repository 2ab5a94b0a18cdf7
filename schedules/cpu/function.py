"""One PrimFunc: read as stages, grouped, and written again as fast loops."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from tvm import s_tir, tirx
from tvm.tirx.script import builder as T

from ..stages.fuse import by_buffer, inline
from ..stages.program import Program, Stage, constant, loads, read
from .emit import function_body
from .kernel import Kernel
from .machine import Machine
from .panels import Packing, packing
from .product import Epilogue, Product, epilogue, recognize
from .rows import WORTH_THREADS, common_axes, emit_rows
from .tile import Tile, default_tile
from .vector_math import expand

#: Functions with this attribute have a schedule.
SCHEDULED = "tirx.is_scheduled"

#: The tile of a product, given what follows, whether its weight is packed, and the rule's tile.
ChooseTile = Callable[[Product, "Epilogue | None", bool, Tile], Tile]


def by_rule(product: Product, after: Epilogue | None, packed: bool, rule: Tile) -> Tile:
    """The rule's tile."""
    del product, after, packed
    return rule


@dataclasses.dataclass(frozen=True)
class Scheduled:
    """A function with loops for a machine.

    Attributes:
        function: its parameters are those it had, but for the packed ones.
        packings: by parameter, how the caller's constants have to be laid out.
    """

    function: tirx.PrimFunc
    packings: dict[int, Packing]


@dataclasses.dataclass(frozen=True)
class _Rows:
    stages: tuple[Stage, ...]


@dataclasses.dataclass(frozen=True)
class _Product:
    product: Product
    after: Epilogue | None

    @property
    def stages(self) -> tuple[Stage, ...]:
        own = (self.product.stage,)
        return own if self.after is None else (*own, self.after.stage)


def schedule_function(
    function: tirx.PrimFunc,
    machine: Machine,
    constants: frozenset[int] = frozenset(),
    choose: ChooseTile = by_rule,
) -> Scheduled | None:
    """Give a legalized function loops for this machine.

    Args:
        function: sizes may be symbolic.
        machine: the vector unit.
        constants: parameters that are constants at every call; they may be packed.
        choose: decides about the sizes of products' kernels.

    Returns:
        None where the function has no form known here, or by its sizes nothing to do.
    """
    program = read(function)
    if program is None or _has_empty_loops(program):
        return None
    program = inline(program)
    groups = _groups(program)
    parameters = list(function.params)
    packings: dict[int, Packing] = {}

    def kernel(group: _Product) -> Kernel:
        product = group.product
        counts = [product.count(axes) for axes in (product.rows, product.columns, product.summed)]
        rule = default_tile(machine, *(constant(count) for count in counts))
        panels = None
        position = next(
            (n for n in constants if parameters[n].same_as(product.right.load.source)), None
        )
        if position is not None and not _read_once(program, parameters[position]):
            position = None
        tile = choose(product, group.after, position is not None, rule)
        if position is not None:
            packed = packing(product, tile.columns(machine))
            if packed is not None:
                packings[position] = packed
                panels = tirx.decl_buffer(packed.shape, "float32", name="panels")
                parameters[position] = panels
        work = constant(product.count((*product.stage.axes,)))
        return Kernel(
            product, group.after, tile, machine, panels, work is None or work >= 16 * WORTH_THREADS
        )

    def write() -> None:
        private = [_private(group, program) for group in groups]
        shared = [common_axes(g.stages) if isinstance(g, _Rows) else 0 for g in groups]
        local = [
            buffer for mine, axes in zip(private, shared, strict=True) if axes for buffer in mine
        ]
        inner = [
            group.product.stage.buffer
            for group in groups
            if isinstance(group, _Product) and group.after is not None
        ]
        for buffer in program.intermediates:
            if not any(buffer.same_as(other) for other in (*local, *inner)):
                T.add_to_parent(tirx.AllocBuffer(buffer, {}))
        for group, mine, axes in zip(groups, private, shared, strict=True):
            if isinstance(group, _Product):
                kernel(group).emit()
            else:
                emit_rows(group.stages, axes, mine if axes else [], machine)

    body = function_body(write)
    repacked = tirx.PrimFunc(parameters, body, function.ret_type, function.attrs)
    return Scheduled(_finished(repacked, body), packings)


def _has_empty_loops(program: Program) -> bool:
    return any(constant(axis.extent) == 0 for stage in program.stages for axis in stage.axes)


def _finished(function: tirx.PrimFunc, body: Any) -> tirx.PrimFunc:
    """The function with finished loops as its body."""
    root = s_tir.SBlock([], [], [], "root", expand(body))
    realized = s_tir.SBlockRealize([], True, root)
    return function.with_body(realized).with_attr(SCHEDULED, True)


def _groups(program: Program) -> list[_Rows | _Product]:
    groups: list[_Rows | _Product] = []
    waiting = list(program.stages)
    while waiting:
        stage = waiting.pop(0)
        product = recognize(stage)
        if product is not None:
            after = _after(product, waiting, program)
            if after is not None:
                waiting.pop(0)
            groups.append(_Product(product, after))
        elif (
            groups
            and isinstance(groups[-1], _Rows)
            and common_axes([*groups[-1].stages, stage]) > 0
        ):
            groups[-1] = _Rows((*groups[-1].stages, stage))
        else:
            groups.append(_Rows((stage,)))
    return groups


def _after(product: Product, waiting: Sequence[Stage], program: Program) -> Epilogue | None:
    buffer = product.stage.buffer
    inside = any(buffer.same_as(other) for other in program.intermediates)
    if not inside or len(by_buffer(program.stages, buffer)) != 1 or not waiting:
        return None
    return epilogue(product, waiting[0])


def _read_once(program: Program, buffer: Any) -> bool:
    return sum(load.source.same_as(buffer) for s in program.stages for load in loads(s.value)) == 1


def _private(group: _Rows | _Product, program: Program) -> list[Any]:
    """Intermediates that no other group reads."""
    own = {id(stage) for stage in group.stages}
    others = [stage for stage in program.stages if id(stage) not in own]
    return [
        buffer
        for buffer in program.intermediates
        if any(stage.buffer.same_as(buffer) for stage in group.stages)
        and not by_buffer(others, buffer)
    ]


__all__ = ["SCHEDULED", "Scheduled", "schedule_function"]
