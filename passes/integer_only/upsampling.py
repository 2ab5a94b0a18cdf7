"""Rules for what makes images larger: transposed convolution and bilinear resizing."""

from __future__ import annotations

import numpy as np
from tvm import relax

from ...ops.integer.functions import RESIZE_BITS
from ...ops.meanings.resize import interpolation
from ..rewrite import constant
from .accumulate import constant_bias, fold
from .context import Codes, Context, Target


def transposed_convolution(
    context: Context, value: relax.Expr, target: Target
) -> relax.Expr | None:
    """conv2d_transpose, bias and clamp → zeros between the elements, then ``fewbits.conv2d``.

    The kernel is turned by 180 degrees; what is zero between elements is the zero point in codes.
    """
    inner, target = context.clamp(value, target)
    inner, bias = constant_bias(context, inner, 1)
    call = context.call(inner, "relax.nn.conv2d_transpose")
    if call is None or bias is None:
        return None
    data, weights = context.codes(call.args[0]), context.weights(call.args[1])
    attrs = call.attrs
    if data is None or weights is None or weights.axis != 1 or int(attrs.groups) != 1:
        return None
    name = context.name(inner)
    strides, dilation = [int(s) for s in attrs.strides], [int(d) for d in attrs.dilation]
    extra, given = [int(p) for p in attrs.output_padding], [int(p) for p in attrs.padding]
    reach = [dilation[i] * (weights.codes.shape[2 + i] - 1) for i in range(2)]
    before = [reach[i] - given[i] for i in range(2)]
    after = [reach[i] - given[2 + i] + extra[i] for i in range(2)]
    if min(*before, *after) < 0:
        return None
    ohwi = weights.codes[:, :, ::-1, ::-1].transpose(1, 2, 3, 0)
    bias = np.broadcast_to(bias, (len(ohwi),)).astype(np.float64)
    folded = fold(ohwi, weights.scale, data, bias, target)
    if folded is None:
        return None
    nhwc = context.permute(data.expression, [0, 2, 3, 1], f"{name}:in")
    spread, after = _spread(context, nhwc, data.zero_point, strides, after, name)
    result = context.emit(
        "fewbits.conv2d",
        [spread, constant(folded.weights), folded.bias, folded.multiplier],
        name,
        target,
        strides=[1, 1],
        padding=[*before, *after],
        dilation=dilation,
        groups=1,
        input_zero=data.zero_point,
        shift=folded.shift,
        minimum=target.minimum,
        maximum=target.maximum,
    )
    return context.permute(result, [0, 3, 1, 2], f"{name}:out")


def _spread(
    context: Context,
    nhwc: relax.Var,
    zero_point: int,
    strides: list[int],
    after: list[int],
    name: str,
) -> tuple[relax.Var, list[int]]:
    """`strides - 1` zeros after each row and column, and the padding still missing behind."""
    n, height, width, channels = (int(d) for d in nhwc.ty.shape.values)
    if strides == [1, 1]:
        return nhwc, after
    apart = context.reshape(nhwc, [n, height, 1, width, 1, channels], f"{name}:apart")
    widths = [0, 0, 0, 0, 0, strides[0] - 1, 0, 0, 0, strides[1] - 1, 0, 0]
    zeros = relax.op.nn.pad(apart, widths, "constant", float(zero_point))
    padded = context.rewriter.emit(zeros, f"{name}:zeros")
    sizes = [height * strides[0], width * strides[1]]
    spread = context.reshape(padded, [n, *sizes, channels], f"{name}:spread")
    missing = [after[i] - (strides[i] - 1) for i in range(2)]
    if min(missing) < 0:
        ends = [size + min(m, 0) for size, m in zip(sizes, missing, strict=True)]
        cut = relax.op.strided_slice(spread, [1, 2], [0, 0], ends)
        spread = context.rewriter.emit(cut, f"{name}:cut")
    return spread, [max(m, 0) for m in missing]


def bilinear(context: Context, value: relax.Expr, target: Target) -> relax.Expr | None:
    """Linear resize2d → ``fewbits.resize2d``, then another scale where the output has one."""
    call = context.call(value, "relax.image.resize2d")
    data = None if call is None else context.codes(call.args[0])
    if call is None or data is None:
        return None
    attrs = call.attrs
    if attrs.method != "linear" or attrs.layout != "NCHW":
        return None
    if attrs.coordinate_transformation_mode == "tf_crop_and_resize":
        return None
    name = context.name(value)
    tables = [table for axis in (2, 3) for table in _positions(call, axis, data.shape[axis])]
    resized = context.emit(
        "fewbits.resize2d",
        [context.permute(data.expression, [0, 2, 3, 1], f"{name}:in"), *map(constant, tables)],
        name,
        Target(data.scale, data.zero_point),
    )
    nchw = context.permute(resized, [0, 3, 1, 2], f"{name}:out")
    return context.rescale(Codes(nchw, data.scale, data.zero_point), target, f"{name}:rescaled")


def _positions(call: relax.Call, axis: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Along one axis, per output element: the two elements it lies between, and the weight of the
    second."""
    attrs = call.attrs
    target = int(call.args[1].values[axis - 2])
    matrix, _ = interpolation(
        size, target, "linear", str(attrs.coordinate_transformation_mode), "", -0.5, False, 0.0, 0.0
    )
    places = matrix.astype(np.float64) @ np.arange(size)
    first = np.clip(np.floor(places), 0, size - 1)
    pairs = np.stack([first, np.minimum(first + 1, size - 1)], 1).astype(np.int32)
    weights = np.rint(np.clip(places - first, 0, 1) * (1 << RESIZE_BITS)).astype(np.int32)
    return pairs, weights
