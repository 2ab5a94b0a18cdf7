"""Rules for operators that only move data."""

from __future__ import annotations

import numpy as np
from tvm import relax

from ..rewrite import operator_of
from .context import Codes, Context, Target, encode

_MOVERS = (
    "relax.reshape", "relax.permute_dims", "relax.squeeze", "relax.expand_dims", "relax.flatten",
    "relax.strided_slice", "relax.take", "relax.broadcast_to", "relax.tile", "relax.flip",
    "relax.repeat", "relax.nn.pad", "relax.image.resize2d",
)  # fmt: skip


def move(context: Context, value: relax.Expr, target: Target) -> relax.Expr | None:
    """The same operator on codes, then another scale where the output has one."""
    call = context.call(value, *_MOVERS)
    data = None if call is None else context.codes(call.args[0])
    if call is None or data is None:
        return None
    name = context.name(value)
    arguments = [data.expression, *call.args[1:]]
    operator = operator_of(call)
    if operator == "relax.image.resize2d" and call.attrs.method != "nearest_neighbor":
        return None
    if operator == "relax.nn.pad":
        attrs = call.attrs
        inside = Target(data.scale, data.zero_point)
        fill = int(encode(np.array([float(attrs.pad_value)]), inside)[0])
        moved = relax.op.nn.pad(
            data.expression, [int(w) for w in attrs.pad_width], attrs.pad_mode, float(fill)
        )
    else:
        moved = relax.Call(call.op, arguments, call.attrs, call.ty_args)
    codes = Codes(context.rewriter.emit(moved, name), data.scale, data.zero_point)
    return context.rescale(codes, target, f"{name}:rescaled")


def concat(context: Context, value: relax.Expr, target: Target) -> relax.Expr | None:
    """Concatenation, its inputs brought to the output's scale first."""
    call = context.call(value, "relax.concat")
    fields = None if call is None else context.definition(call.args[0])
    if call is None or not isinstance(fields, relax.Tuple):
        return None
    pieces = [context.codes(field) for field in fields.fields]
    name = context.name(value)
    scaled: list[relax.Expr] = []
    for index, piece in enumerate(pieces):
        if piece is None:
            return None
        scaled.append(context.rescale(piece, target, f"{name}:{index}"))
    return context.rewriter.emit(relax.op.concat(scaled, int(call.attrs.axis)), name)
