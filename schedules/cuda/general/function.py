"""One PrimFunc: read as pieces, grouped, and written again as kernels."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import tvm_ffi
from tvm import ir, s_tir, tirx
from tvm.tirx.script import builder as T

from ...stages.fuse import inline
from ...stages.program import Program, Stage, constant, is_one, loads, read_stage
from ..architecture import Architecture
from .arg_rows import emit_arg_rows, read_arg_rows
from .flat import emit_flat, is_flat
from .launch import function_body, index
from .opaque import (
    BlockNest,
    Plain,
    emit_nest,
    emit_plain,
    emit_sequence,
    own_temporaries,
    read_nest,
)
from .product_form import read_product
from .row_form import read_rows
from .rows import emit_rows
from .tiles import emit_tiles
from .transpose import emit_turned, read_turned

#: Functions with this attribute have a schedule.
SCHEDULED = "tirx.is_scheduled"

Piece = Stage | BlockNest | Plain | tirx.Stmt


@dataclasses.dataclass(frozen=True)
class Pieces:
    """A PrimFunc's loops in order, and the buffers that live only inside it."""

    pieces: tuple[Piece, ...]
    intermediates: tuple[Any, ...]


def schedule_function(function: tirx.PrimFunc, architecture: Architecture) -> tirx.PrimFunc:
    """Give a legalized function threads.

    Args:
        function: sizes may be symbolic; its parameters stay as they are.
        architecture: what it is for.

    Returns:
        One kernel or several in order. Intermediates between kernels are memory of the device.
    """
    whole = read_pieces(function)
    groups = groups_of(whole.pieces)

    def write() -> None:
        inside = [_private(group, groups, whole) for group in groups]
        hidden = [buffer for own in inside for buffer in own]
        for buffer in whole.intermediates:
            if not _among(buffer, hidden):
                T.add_to_parent(tirx.AllocBuffer(buffer, {}))
        if not groups:
            T.evaluate(0)
        for group, private in zip(groups, inside, strict=True):
            _emit(group, private, architecture)

    body = function_body(write)
    root = s_tir.SBlock([], [], [], "root", body)
    scheduled = function.with_body(s_tir.SBlockRealize([], True, root)).with_attr(SCHEDULED, True)
    assert has_threads(scheduled), "a kernel without threads"
    return scheduled


def read_pieces(function: tirx.PrimFunc) -> Pieces:
    """The loops of a function, with elementwise producers written into their consumers."""
    pieces: list[Piece] = []
    intermediates: list[Any] = []
    _read(function.body, pieces, intermediates)
    if all(isinstance(piece, Stage) for piece in pieces):
        program = Program(tuple(pieces), tuple(intermediates))  # type: ignore[arg-type]
        program = inline(program, choices=True)
        return Pieces(tuple(program.stages), program.intermediates)
    return Pieces(tuple(pieces), tuple(intermediates))


def _read(statement: Any, pieces: list[Piece], intermediates: list[Any]) -> None:
    if isinstance(statement, s_tir.SBlockRealize) and not statement.block.iter_vars:
        block = statement.block
        if not block.match_buffers and block.init is None:
            intermediates.extend(block.alloc_buffers)
            statements = tirx.stmt_list(block.body)
            own = [each.buffer for each in statements if isinstance(each, tirx.AllocBuffer)]
            rest = [each for each in statements if not isinstance(each, tirx.AllocBuffer)]
            temporaries = [b for b in own if sum(_mentions(each, b) for each in rest) == 1]
            intermediates.extend(own)
            for each in rest:
                _read_one(
                    each, pieces, intermediates, [b for b in temporaries if _mentions(each, b)]
                )
            return
    _read_one(statement, pieces, intermediates, [])


def _read_one(
    statement: Any, pieces: list[Piece], intermediates: list[Any], temporaries: list[Any]
) -> None:
    if isinstance(statement, s_tir.SBlockRealize) and not statement.block.iter_vars:
        _read(statement, pieces, intermediates)
        return
    stage = read_stage(statement)
    nest = read_nest(statement) if stage is None else None
    if stage is not None:
        if not any(constant(axis.extent) == 0 for axis in stage.spatial):
            pieces.append(_without_single_terms(stage))
    elif nest is not None:
        pieces.append(nest)
    elif isinstance(statement, tirx.For) and not _has_blocks(statement):
        pieces.append(Plain(statement, tuple(temporaries)))
    else:
        pieces.append(statement)


def _without_single_terms(stage: Stage) -> Stage:
    """A reduction over one term as the term."""
    if not stage.reductions or not all(is_one(axis.extent) for axis in stage.reductions):
        return stage
    plain = stage.at({axis.var: index(0) for axis in stage.reductions})
    value = stage.combine(stage.initial, plain.value)
    return dataclasses.replace(plain, value=value, combine=None, initial=None)


def groups_of(pieces: Sequence[Piece]) -> list[list[Piece]]:
    """The pieces by kernel."""
    groups: list[list[Piece]] = []
    for piece in pieces:
        if groups and _joins(groups[-1], piece):
            groups[-1].append(piece)
        else:
            groups.append([piece])
    return groups


def _joins(group: Sequence[Piece], piece: Piece) -> bool:
    stages = [each for each in (*group, piece) if isinstance(each, Stage)]
    whole = len(stages) == len(group) + 1 and read_product(stages[-1]) is None
    if not whole:
        return False
    return is_flat(stages) or (read_product(stages[0]) is None and read_rows(stages) is not None)


def _emit(group: Sequence[Piece], private: Sequence[Any], architecture: Architecture) -> None:
    first = group[0]
    if isinstance(first, Stage):
        stages = [each for each in group if isinstance(each, Stage)]
        chain, product = read_rows(stages), read_product(stages[0])
        turned = read_turned(stages[0])
        if product is not None:
            emit_tiles(product, stages[1:], private)
        elif chain is not None:
            emit_rows(chain, private)
        elif turned is not None:
            emit_turned(turned, stages[1:], private)
        else:
            emit_flat(stages, private)
    elif isinstance(first, BlockNest):
        arg = read_arg_rows(first)
        if arg is None:
            emit_nest(first)
        else:
            emit_arg_rows(arg)
    elif isinstance(first, Plain):
        emit_plain(first)
    else:
        emit_sequence(first)


def _private(group: Sequence[Piece], groups: Sequence[Any], whole: Pieces) -> list[Any]:
    """Intermediates that no other group uses and that need no memory."""
    others = [each for other in groups if other is not group for each in other]
    if isinstance(group[0], Plain):
        return own_temporaries(group[0])
    if not isinstance(group[0], Stage):
        return []
    written = [each.buffer for each in group if isinstance(each, Stage)]
    return [
        buffer
        for buffer in whole.intermediates
        if _among(buffer, written) and not any(_piece_uses(each, buffer) for each in others)
    ]


def _piece_uses(piece: Piece, buffer: Any) -> bool:
    if isinstance(piece, Stage):
        return any(load.source.same_as(buffer) for load in loads(piece.value))
    if isinstance(piece, BlockNest):
        return _mentions(piece.block, buffer)
    return _mentions(piece.statement if isinstance(piece, Plain) else piece, buffer)


def _mentions(node: Any, buffer: Any) -> bool:
    found: list[bool] = []

    def visit(var: Any) -> None:
        if var.same_as(buffer):
            found.append(True)

    tvm_ffi.structural_walk(node, [(ir.Var, visit)])
    return bool(found)


def _has_blocks(statement: Any) -> bool:
    found: list[bool] = []
    tvm_ffi.structural_walk(statement, [(s_tir.SBlockRealize, lambda _: found.append(True))])
    return bool(found)


def _among(buffer: Any, buffers: Sequence[Any]) -> bool:
    return any(buffer.same_as(other) for other in buffers)


def has_threads(function: tirx.PrimFunc) -> bool:
    """Whether every store of a function is made by threads of a GPU."""
    bare: list[Any] = []

    def visit(node: Any) -> Any:
        if isinstance(node, tirx.For) and node.kind == tirx.ForKind.THREAD_BINDING:
            return tvm_ffi.WalkResult.SKIP
        if isinstance(node, tirx.BufferStore):
            bare.append(node)
        return None

    tvm_ffi.structural_walk(
        function.body, [(tirx.For, visit), (tirx.BufferStore, visit)], order="pre"
    )
    return not bare


__all__ = ["SCHEDULED", "groups_of", "has_threads", "read_pieces", "schedule_function"]
