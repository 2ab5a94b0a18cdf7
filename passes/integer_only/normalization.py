"""Rules for layer norm and PReLU: a constant for every channel along the last axis."""

from __future__ import annotations

import math

import numpy as np
from tvm import relax

from ...ops.integer.normalization import NORMAL_BITS
from ..rewrite import constant
from .context import Context, Target
from .elementwise import LARGEST_MULTIPLIER, LARGEST_SHIFT

#: Rows of a layer norm: longer ones could overflow 64 bits.
_LONGEST_ROW = 2**15
_LARGEST_EPSILON = 2**44


def layer_norm(context: Context, value: relax.Expr, target: Target) -> relax.Expr | None:
    """layer_norm over the last axis → ``fewbits.layer_norm``."""
    call = context.call(value, "relax.nn.layer_norm")
    data = None if call is None else context.codes(call.args[0])
    if call is None or data is None:
        return None
    rank, count = len(data.shape), data.shape[-1]
    weight, bias = context.constant(call.args[1]), context.constant(call.args[2])
    if weight is None or bias is None or [int(a) % rank for a in call.attrs.axes] != [rank - 1]:
        return None
    weight = np.broadcast_to(weight.ravel(), (count,)) if call.attrs.scale else np.ones(count)
    bias = np.broadcast_to(bias.ravel(), (count,)) if call.attrs.center else np.zeros(count)
    epsilon = round(count**2 * float(call.attrs.epsilon) / data.scale**2)
    if count > _LONGEST_ROW or epsilon > _LARGEST_EPSILON:
        return None
    slope, offset = weight / target.scale, bias / target.scale + target.zero_point + 0.5
    # A normalized element is at most the square root of their number.
    reach = 1.01 * math.sqrt(count) * np.abs(slope).max() + np.abs(offset).max() + 1.0
    shift = min(22, math.floor(math.log2(2**31 / reach)))
    if shift < NORMAL_BITS:
        return None
    return context.emit(
        "fewbits.layer_norm",
        [
            data.expression,
            constant(np.rint(np.ldexp(slope, shift - NORMAL_BITS)).astype(np.int32)),
            constant(np.rint(np.ldexp(offset, shift)).astype(np.int32)),
        ],
        context.name(value),
        target,
        epsilon=epsilon,
        shift=shift,
        minimum=target.minimum,
        maximum=target.maximum,
    )


def prelu(context: Context, value: relax.Expr, target: Target) -> relax.Expr | None:
    """PReLU with a slope per channel → ``fewbits.prelu`` over the last axis."""
    call = context.call(value, "relax.nn.prelu")
    data = None if call is None else context.codes(call.args[0])
    slopes = None if call is None else context.constant(call.args[1])
    if call is None or data is None or slopes is None:
        return None
    rank, name = len(data.shape), context.name(value)
    axis = int(call.attrs.axis) % rank
    slopes = np.broadcast_to(slopes.ravel(), (data.shape[axis],))
    ratio = data.scale / target.scale
    largest = ratio * max(1.0, float(np.abs(slopes).max()))
    shift = min(LARGEST_SHIFT, math.floor(math.log2(LARGEST_MULTIPLIER / largest)))
    if shift < 0:
        return None
    multiplier = constant(np.rint(np.ldexp(slopes * ratio, shift)).astype(np.int32))

    def compute(codes: relax.Expr) -> relax.Var:
        return context.emit(
            "fewbits.prelu",
            [codes, multiplier],
            name,
            target,
            zero=data.zero_point,
            positive=round(math.ldexp(ratio, shift)),
            bias=round(math.ldexp(target.zero_point + 0.5, shift)),
            shift=shift,
            minimum=target.minimum,
            maximum=target.maximum,
        )

    return context.with_axis_last(data, axis, name, compute)
