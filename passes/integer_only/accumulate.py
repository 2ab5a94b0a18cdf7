"""Rules for convolution, dense and matrix product."""

from __future__ import annotations

import dataclasses

import numpy as np
from tvm import ir, relax

from ...ops.integer.arithmetic import possible_requantization, requantization_shift
from ..rewrite import constant
from .context import Codes, Context, Target, Weights

#: Factors below this lose precision as 32-bit multipliers, and larger offsets overflow: weights of
#: such channels are re-expressed on a coarser grid, where they round to almost nothing.
SMALLEST_FACTOR = 2.0**-22
LARGEST_OFFSET = 2.0**29


@dataclasses.dataclass(frozen=True)
class Folded:
    """Integer constants of a multiply-accumulate layer, channels first."""

    weights: np.ndarray
    bias: relax.Expr
    multiplier: relax.Expr
    shift: int


def fold(
    weights: np.ndarray,
    scale: np.ndarray,
    data: Codes,
    bias: np.ndarray,
    target: Target,
) -> Folded | None:
    """Fold zero points, bias and rounding of `weights` [O, ...] (int64) into two constants.

    None where the accumulator may leave int32.
    """
    channels = len(weights)
    factor = data.scale * scale / target.scale
    offset = bias / target.scale  # in output steps
    # Both limits are on the accumulator as requantization shifts it.
    unit = 2.0 ** requantization_shift(factor)
    coarse = np.maximum(factor, SMALLEST_FACTOR * unit)
    coarse = np.maximum(coarse, np.abs(offset) / LARGEST_OFFSET * unit)
    ratio = (factor / coarse).reshape(-1, *[1] * (weights.ndim - 1))
    weights = np.where(ratio < 1.0, np.rint(weights * ratio), weights).astype(np.int64)
    rows = weights.reshape(channels, -1)
    integers = possible_requantization(
        coarse,
        offset / coarse - data.zero_point * rows.sum(1),
        target.zero_point,
        np.abs(rows).sum(1) * 128,
    )
    if integers is None:
        return None
    narrow = np.abs(rows).max(initial=0) <= 127
    return Folded(
        weights.astype(np.int8 if narrow else np.int16),
        constant(integers.bias),
        constant(integers.multiplier),
        integers.shift,
    )


def constant_bias(
    context: Context, value: relax.Expr, axis: int
) -> tuple[relax.Expr, np.ndarray | None]:
    """The multiply-accumulate under a constant bias, and the bias along `axis` (None: not one)."""
    call = context.call(value, "relax.add", "relax.subtract")
    if call is None:
        return value, np.zeros(1)
    sign = 1.0 if context.call(value, "relax.add") is not None else -1.0
    shape = [int(d) for d in value.ty.shape.values]
    for inner, other in ((call.args[0], call.args[1]), (call.args[1], call.args[0])):
        if sign < 0 and inner is call.args[1]:
            continue
        array = context.constant(other)
        if array is None or isinstance(context.definition(inner), ir.GenericConst):
            continue
        padded = array.reshape([1] * (len(shape) - array.ndim) + list(array.shape))
        others = [d for i, d in enumerate(padded.shape) if i != axis % len(shape)]
        if all(d == 1 for d in others) and [int(d) for d in inner.ty.shape.values] == shape:
            return inner, sign * padded.ravel()
    return value, None


def convolution(context: Context, value: relax.Expr, target: Target) -> relax.Expr | None:
    """conv1d/conv2d with constant weights, bias and clamp → ``fewbits.conv2d``."""
    inner, target = context.clamp(value, target)
    inner, bias = constant_bias(context, inner, 1)
    call = context.call(inner, "relax.nn.conv2d", "relax.nn.conv1d")
    if call is None or bias is None:
        return None
    data, weights = context.codes(call.args[0]), context.weights(call.args[1])
    if data is None or weights is None or weights.axis != 0:
        return None
    name = context.name(inner)
    attrs = call.attrs
    one_dimensional = context.call(inner, "relax.nn.conv1d") is not None
    codes, kernel = data.expression, weights.codes
    strides, dilation = [int(s) for s in attrs.strides], [int(d) for d in attrs.dilation]
    padding = [int(p) for p in attrs.padding]
    if one_dimensional:
        n, channels, length = data.shape
        codes = context.reshape(codes, [n, channels, 1, length], f"{name}:2d")
        kernel = kernel[:, :, None, :]
        strides, dilation = [1, *strides], [1, *dilation]
        padding = [0, padding[0], 0, padding[1]]
    ohwi = kernel.transpose(0, 2, 3, 1)
    bias = np.broadcast_to(bias, (len(ohwi),)).astype(np.float64)
    folded = fold(ohwi, weights.scale, data, bias, target)
    if folded is None:
        return None
    nhwc = context.permute(codes, [0, 2, 3, 1], f"{name}:in")
    result = context.emit(
        "fewbits.conv2d",
        [nhwc, constant(folded.weights), folded.bias, folded.multiplier],
        name,
        target,
        strides=strides,
        padding=padding,
        dilation=dilation,
        groups=int(attrs.groups),
        input_zero=data.zero_point,
        shift=folded.shift,
        minimum=target.minimum,
        maximum=target.maximum,
    )
    nchw = context.permute(result, [0, 3, 1, 2], f"{name}:out")
    if one_dimensional:
        shape = [int(d) for d in call.ty.shape.values]
        return context.reshape(nchw, shape, f"{name}:1d")
    return nchw


def dense(context: Context, value: relax.Expr, target: Target) -> relax.Expr | None:
    """matmul with a constant matrix, bias and clamp → ``fewbits.dense``."""
    inner, target = context.clamp(value, target)
    inner, bias = constant_bias(context, inner, -1)
    call = context.call(inner, "relax.matmul")
    if call is None or bias is None:
        return None
    data, weights = context.codes(call.args[0]), context.weights(call.args[1])
    if data is None or weights is None or weights.codes.ndim != 2 or len(data.shape) < 2:
        return None
    if weights.axis != 1 and len(set(weights.scale)) > 1:
        return None  # scales along the summed axis have no integer form
    name = context.name(inner)
    rows = weights.codes.T
    scale = np.broadcast_to(weights.scale if weights.axis == 1 else weights.scale[:1], len(rows))
    folded = fold(rows, scale, data, np.broadcast_to(bias, (len(rows),)), target)
    if folded is None:
        return None
    return context.emit(
        "fewbits.dense",
        [data.expression, constant(folded.weights), folded.bias, folded.multiplier],
        name,
        target,
        shift=folded.shift,
        minimum=target.minimum,
        maximum=target.maximum,
    )


def matmul(context: Context, value: relax.Expr, target: Target) -> relax.Expr | None:
    """matmul of two run-time values → ``fewbits.matmul``."""
    inner, target = context.clamp(value, target)
    call = context.call(inner, "relax.matmul")
    if call is None:
        return None
    a, b = context.codes(call.args[0]), context.codes(call.args[1])
    if a is None or b is None or len(a.shape) < 2 or len(b.shape) < 2:
        return None
    return product(context, "fewbits.matmul", a, b, context.name(inner), target, a.shape[-1])


def product(
    context: Context, operator: str, a: Codes, b: Codes, name: str, target: Target, terms: int
) -> relax.Var | None:
    """Emit an operator that sums so many products of two run-time values, then requantizes.

    None where int32 cannot hold what may occur.
    """
    integers = possible_requantization(
        np.array([a.scale * b.scale / target.scale]),
        np.zeros(1),
        target.zero_point,
        np.array([terms * 255 * 255]),
    )
    if integers is None:
        return None
    return context.emit(
        operator,
        [a.expression, b.expression],
        name,
        target,
        a_zero=a.zero_point,
        b_zero=b.zero_point,
        bias=int(integers.bias[0]),
        multiplier=int(integers.multiplier[0]),
        shift=integers.shift,
        minimum=target.minimum,
        maximum=target.maximum,
    )


__all__ = ["Weights", "convolution", "dense", "matmul"]
