"""Rules for pooling, means, sums, extremes and softmax."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
from tvm import relax

from ...ops.integer.arithmetic import possible_requantization
from ...ops.integer.softmax import exponential_table
from ..rewrite import constant, operator_of
from .context import Codes, Context, Target


def _average(
    context: Context,
    nhwc: relax.Expr,
    data: Codes,
    target: Target,
    name: str,
    kernel: list[int],
    strides: list[int],
    padding: list[int],
    include_pad: bool,
    terms: int = 1,
) -> relax.Var | None:
    """Emit ``fewbits.average_pool2d`` on a channels-last expression; None beyond int32.

    The result is `terms` times the average.
    """
    size = math.prod(kernel)
    # Without padding every window is full, and the other counts need no precision.
    counts = np.arange(1, size + 1) if any(padding) else np.full(size, size)
    integers = possible_requantization(
        data.scale * terms / (target.scale * counts),
        -data.zero_point * counts.astype(np.float64),
        target.zero_point,
        counts * 128,
    )
    if integers is None:
        return None
    return context.emit(
        "fewbits.average_pool2d",
        [nhwc, constant(integers.bias), constant(integers.multiplier)],
        name,
        target,
        kernel=kernel,
        strides=strides,
        padding=padding,
        dilation=[1, 1],
        count_include_pad=int(include_pad),
        input_zero=data.zero_point,
        shift=integers.shift,
        minimum=target.minimum,
        maximum=target.maximum,
    )


def average_pool(context: Context, value: relax.Expr, target: Target) -> relax.Expr | None:
    """avg_pool2d, global pooling and means over height and width."""
    inner, target = context.clamp(value, target)
    name = context.name(inner)
    pools = ("relax.nn.avg_pool2d", "relax.nn.adaptive_avg_pool2d", "relax.mean", "relax.sum")
    call = context.call(inner, *pools)
    data = None if call is None else context.codes(call.args[0])
    if call is None or data is None:
        return None
    if context.call(inner, "relax.mean", "relax.sum") is not None:
        return _mean(context, call, data, target, name)
    height, width = data.shape[2:]
    kernel, strides, padding, include_pad = [height, width], [1, 1], [0, 0, 0, 0], False
    if context.call(inner, "relax.nn.avg_pool2d") is not None:
        attrs = call.attrs
        if any(int(d) != 1 for d in attrs.dilation):
            return None
        kernel, strides = [int(k) for k in attrs.pool_size], [int(s) for s in attrs.strides]
        padding, include_pad = [int(p) for p in attrs.padding], bool(attrs.count_include_pad)
        extra = _ceil_padding((height, width), call, kernel, strides, padding)
        if any(extra) and include_pad:
            return None
        padding = [padding[0], padding[1], padding[2] + extra[0], padding[3] + extra[1]]
    elif [int(d) for d in call.ty.shape.values][2:] != [1, 1]:
        return None
    nhwc = context.permute(data.expression, [0, 2, 3, 1], f"{name}:in")
    pooled = _average(context, nhwc, data, target, name, kernel, strides, padding, include_pad)
    if pooled is None:
        return None
    return context.permute(pooled, [0, 3, 1, 2], f"{name}:out")


def _ceil_padding(
    size: tuple[int, int],
    call: relax.Call,
    kernel: list[int],
    strides: list[int],
    padding: list[int],
) -> list[int]:
    """Rows and columns that ``ceil_mode`` adds at the end."""
    out = [int(d) for d in call.ty.shape.values][2:]
    dilation = [int(d) for d in call.attrs.dilation]
    extra = []
    for axis in range(2):
        window = dilation[axis] * (kernel[axis] - 1) + 1
        needed = (out[axis] - 1) * strides[axis] + window
        extra.append(max(0, needed - size[axis] - padding[axis] - padding[axis + 2]))
    return extra


def _mean(
    context: Context, call: relax.Call, data: Codes, target: Target, name: str
) -> relax.Expr | None:
    """A mean, or a sum, which is a mean with another scale."""
    rank = len(data.shape)
    axes = _reduced_axes(call, rank)
    if axes is None:
        return None
    shape = [int(d) for d in call.ty.shape.values]
    terms = math.prod(data.shape[a] for a in axes) if operator_of(call) == "relax.sum" else 1
    none = [0, 0, 0, 0]
    if rank == 4 and axes == [2, 3]:
        nhwc = context.permute(data.expression, [0, 2, 3, 1], f"{name}:in")
        kernel = [data.shape[2], data.shape[3]]
        pooled = _average(context, nhwc, data, target, name, kernel, [1, 1], none, False, terms)
        if pooled is None:
            return None
        nchw = context.permute(pooled, [0, 3, 1, 2], f"{name}:out")
        return context.reshape(nchw, shape, f"{name}:flat")
    folded, summed = _folded(context, data, axes, name)
    pooled = _average(context, folded, data, target, name, [summed, 1], [1, 1], none, False, terms)
    if pooled is None:
        return None
    return context.reshape(pooled, shape, f"{name}:out")


def _reduced_axes(call: relax.Call, rank: int) -> list[int] | None:
    """The axes of a reduction in order; None where they are not neighbours."""
    axes = sorted(int(a) % rank for a in (call.attrs.axis or range(rank)))
    return axes if axes == list(range(axes[0], axes[-1] + 1)) else None


def _folded(context: Context, data: Codes, axes: list[int], name: str) -> tuple[relax.Var, int]:
    """The codes as [before, reduced, 1, after], and how many are reduced."""
    before = math.prod(data.shape[: axes[0]])
    reduced = math.prod(data.shape[axes[0] : axes[-1] + 1])
    after = math.prod(data.shape[axes[-1] + 1 :])
    return context.reshape(data.expression, [before, reduced, 1, after], f"{name}:in"), reduced


#: ``-1 - code``: the order of codes turned round, without loss.
_REVERSED = np.arange(-128, 128)[::-1].astype(np.int8)


def extreme(context: Context, value: relax.Expr, target: Target) -> relax.Expr | None:
    """Largest or smallest element along axes → a max pool, of reversed codes for the smallest."""
    inner, target = context.clamp(value, target)
    call = context.call(inner, "relax.max", "relax.min")
    data = None if call is None else context.codes(call.args[0])
    if call is None or data is None:
        return None
    axes, name = _reduced_axes(call, len(data.shape)), context.name(inner)
    if axes is None:
        return None
    smallest = operator_of(call) == "relax.min"
    meaning = Target(data.scale, data.zero_point)
    codes = data.expression
    if smallest:
        codes = context.lookup(codes, _REVERSED, f"{name}:reversed", meaning)
    if len(data.shape) == 4 and axes == [2, 3]:
        window = [data.shape[2], data.shape[3]]
        folded = context.permute(codes, [0, 2, 3, 1], f"{name}:in")
    else:
        folded, reduced = _folded(context, dataclasses.replace(data, expression=codes), axes, name)
        window = [reduced, 1]
    pooled: relax.Expr = context.emit(
        "fewbits.max_pool2d",
        [folded],
        name,
        meaning,
        kernel=window,
        strides=[1, 1],
        padding=[0, 0, 0, 0],
        dilation=[1, 1],
    )
    if smallest:
        pooled = context.lookup(pooled, _REVERSED, f"{name}:back", meaning)
    shape = [int(d) for d in call.ty.shape.values]
    result = context.reshape(pooled, shape, f"{name}:out")
    return context.rescale(dataclasses.replace(data, expression=result), target, f"{name}:rescaled")


def max_pool(context: Context, value: relax.Expr, target: Target) -> relax.Expr | None:
    """max_pool2d, then another scale where the output has one."""
    call = context.call(value, "relax.nn.max_pool2d")
    data = None if call is None else context.codes(call.args[0])
    if call is None or data is None:
        return None
    name = context.name(value)
    attrs = call.attrs
    kernel, strides = [int(k) for k in attrs.pool_size], [int(s) for s in attrs.strides]
    padding = [int(p) for p in attrs.padding]
    extra = _ceil_padding((data.shape[2], data.shape[3]), call, kernel, strides, padding)
    nhwc = context.permute(data.expression, [0, 2, 3, 1], f"{name}:in")
    pooled = context.emit(
        "fewbits.max_pool2d",
        [nhwc],
        name,
        Target(data.scale, data.zero_point),
        kernel=kernel,
        strides=strides,
        padding=[padding[0], padding[1], padding[2] + extra[0], padding[3] + extra[1]],
        dilation=[int(d) for d in attrs.dilation],
    )
    nchw = context.permute(pooled, [0, 3, 1, 2], f"{name}:out")
    return context.rescale(Codes(nchw, data.scale, data.zero_point), target, f"{name}:rescaled")


def softmax(context: Context, value: relax.Expr, target: Target) -> relax.Expr | None:
    """softmax along any axis → ``fewbits.softmax`` along the last."""
    call = context.call(value, "relax.nn.softmax")
    data = None if call is None else context.codes(call.args[0])
    if call is None or data is None:
        return None
    name = context.name(value)
    rank = len(data.shape)
    axis = int(call.attrs.axis) % rank
    if data.shape[axis] >= 2**16:
        return None
    ratio = 1.0 / (2**16 * target.scale)
    shift = min(22, math.floor(math.log2(2**14 / ratio)))
    if shift < 0:
        return None
    table = constant(exponential_table(data.scale))

    def compute(codes: relax.Expr) -> relax.Var:
        return context.emit(
            "fewbits.softmax",
            [codes, table],
            name,
            target,
            multiplier=round(math.ldexp(ratio, shift)),
            bias=round(math.ldexp(target.zero_point + 0.5, shift)),
            shift=shift,
            minimum=target.minimum,
            maximum=target.maximum,
        )

    return context.with_axis_last(data, axis, name, compute)
