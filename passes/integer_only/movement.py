"""Rules for operators that only move data."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from tvm import relax

from ..rewrite import constant, operator_of
from .context import Codes, Context, Target, encode

_MOVERS = (
    "relax.reshape", "relax.permute_dims", "relax.squeeze", "relax.expand_dims", "relax.flatten",
    "relax.strided_slice", "relax.take", "relax.broadcast_to", "relax.tile", "relax.flip",
    "relax.repeat", "relax.nn.pad", "relax.image.resize2d",
)  # fmt: skip


def _moved(context: Context, call: relax.Call, data: Codes, name: str) -> Codes | None:
    """A mover applied to codes; None where it does more than move them."""
    if operator_of(call) == "relax.image.resize2d" and call.attrs.method != "nearest_neighbor":
        return None
    if operator_of(call) == "relax.nn.pad":
        attrs = call.attrs
        padding = float(attrs.pad_value)
        fill = int(encode(np.array([padding]), Target(data.scale, data.zero_point))[0])
        if abs((fill - data.zero_point) * data.scale - padding) > 0.51 * data.scale:
            return None  # the codes cannot express what is padded with
        moved = relax.op.nn.pad(
            data.expression, [int(w) for w in attrs.pad_width], attrs.pad_mode, float(fill)
        )
    else:
        others = [context.rewriter.map(argument) for argument in call.args[1:]]
        moved = relax.Call(call.op, [data.expression, *others], call.attrs, call.ty_args)
    return Codes(context.rewriter.emit(moved, name), data.scale, data.zero_point)


def move(context: Context, value: relax.Expr, target: Target) -> relax.Expr | None:
    """The same operator on codes, then another scale where the output has one."""
    call = context.call(value, *_MOVERS)
    data = None if call is None else context.codes(call.args[0])
    if call is None or data is None:
        return None
    name = context.name(value)
    if operator_of(call) == "relax.nn.pad":  # the padding has to fit the result's range only
        inner = dataclasses.replace(target, stands_for="")
        scaled = context.rescale(data, inner, f"{name}:rescaled")
        moved = _moved(context, call, Codes(scaled, target.scale, target.zero_point), name)
        return None if moved is None else moved.expression
    codes = _moved(context, call, data, name)
    return None if codes is None else context.rescale(codes, target, f"{name}:rescaled")


def split(context: Context, value: relax.Expr, target: Target) -> relax.Expr | None:
    """One piece of a split; all pieces of it come from one split of the codes."""
    piece = context.definition(value)
    if not isinstance(piece, relax.TupleGetItem):
        return None
    source = piece.tuple_value
    call = context.call(source, "relax.split")
    data = None if call is None else context.codes(call.args[0])
    if call is None or data is None:
        return None
    if source not in context.splits:
        moved = relax.Call(call.op, [data.expression], call.attrs, call.ty_args)
        context.splits[source] = context.rewriter.emit(moved, context.name(source))
    name = context.name(value)
    taken = context.rewriter.emit(relax.TupleGetItem(context.splits[source], piece.index), name)
    codes = Codes(taken, data.scale, data.zero_point)
    return context.rescale(codes, target, f"{name}:rescaled")


def move_later(context: Context, value: relax.Expr, target: Target) -> relax.Expr | None:
    """Movers of a float value are applied to its codes: first quantize, then move.

    Exporters put transpositions and reshapes between an input and its quantize; so moved, the
    input itself can be int8.
    """
    calls: list[tuple[relax.Call, str]] = []
    while (call := context.call(value, *_MOVERS)) is not None:
        calls.append((call, context.name(value)))
        value = call.args[0]
    if not calls or not isinstance(value, relax.Var):
        return None
    codes = context.quantize(value, target)
    for call, name in reversed(calls):
        moved = _moved(context, call, codes, name)
        if moved is None:
            return None
        codes = moved
    return codes.expression


def move_first(context: Context, var: relax.Var, call: relax.Call) -> relax.Expr | None:
    """A mover between a dequantize and a float user: first move the codes, then dequantize."""
    if operator_of(call) not in _MOVERS or (data := context.codes(call.args[0])) is None:
        return None
    codes = _moved(context, call, data, var.name)
    return None if codes is None else context.dequantize(codes, f"{var.name}:dq")


def concat(context: Context, value: relax.Expr, target: Target) -> relax.Expr | None:
    """Concatenation, its inputs brought to the output's scale first."""
    call = context.call(value, "relax.concat")
    fields: Any = None if call is None else context.definition(call.args[0])
    if call is None or fields is None or not isinstance(fields, relax.Tuple):
        return None
    name = context.name(value)
    scaled: list[relax.Expr] = []
    for index, field in enumerate(fields.fields):
        known = context.constant(field)
        piece = context.codes(field)
        if known is not None:
            scaled.append(constant(encode(known, target)))
        elif piece is not None:
            part = dataclasses.replace(target, stands_for=_name_of(field))
            scaled.append(context.rescale(piece, part, f"{name}:{index}"))
        else:
            return None
    return context.rewriter.emit(relax.op.concat(scaled, int(call.attrs.axis)), name)


def _name_of(expression: relax.Expr) -> str:
    return expression.name if isinstance(expression, relax.Var) else ""
