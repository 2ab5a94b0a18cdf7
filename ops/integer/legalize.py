"""The integer operators in TIR, exactly as defined, so that any back end can run them.

Microcontrollers have kernels for the common forms; what those refuse (16-bit weights, unusual
dilations) and every other target computes this.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tvm import get_global_func, ir, relax, te, tirx

#: TIR intrinsic: the upper half of a 64-bit product of two int32. Kept whole so that code
#: generators can use the one instruction for it; others see what it is lowered to.
HIGH_PRODUCT = "fewbits.high_product"

Index = Sequence[ir.Expr]
_Lowering = Callable[..., te.Tensor]


def legalizes(name: str) -> Callable[[_Lowering], _Lowering]:
    """Decorator: ``function(attrs, *tensors)`` is the operator ``fewbits.<name>``."""

    def register(function: _Lowering) -> _Lowering:
        def legalize(builder: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
            names = call.attrs.keys()
            attributes = {str(name): _plain(call.attrs[name]) for name in names}
            return builder.call_te(
                lambda *tensors: function(attributes, *tensors),
                *call.args,
                primfunc_name_hint=name,
            )

        ir.register_op_attr(f"fewbits.{name}", "FLegalize", legalize)
        return function

    return register


def _define_high_product() -> None:
    def lowered(call: ir.Call) -> ir.Expr:
        a, b = (argument.astype("int64") for argument in call.args)
        return ((a * b) >> tirx.const(32, "int64")).astype("int32")

    if HIGH_PRODUCT not in ir.Op.list_op_names():
        get_global_func("ir.RegisterOp")(HIGH_PRODUCT, "upper half of a product of two int32")
    ir.register_op_attr(HIGH_PRODUCT, "TCallEffectKind", tirx.CallEffectKind.Pure.value)
    ir.register_op_attr(HIGH_PRODUCT, "default.FLowerIntrinsic", lowered)


_define_high_product()


def _plain(value: Any) -> Any:
    """An attribute as Python values; what only describes the result stays as it is."""
    if isinstance(value, int | float | str):
        return value
    return [int(one) for one in value]


def _requantized(attrs: dict, total: ir.Expr, bias: ir.Expr, multiplier: ir.Expr) -> ir.Expr:
    """``clamp((((total << shift) + bias) * multiplier) >> 32)`` as int8."""
    shifted = (total << attrs["shift"] if attrs["shift"] else total) + bias
    return clamped(attrs, tirx.call_intrin("int32", HIGH_PRODUCT, shifted, multiplier))


def clamped(attrs: dict, value: ir.Expr) -> ir.Expr:
    """The value between ``minimum`` and ``maximum``, as int8."""
    low, high = (tirx.const(attrs[key], value.ty.dtype) for key in ("minimum", "maximum"))
    return tirx.max(tirx.min(value, high), low).astype("int8")


def wide(value: ir.Expr) -> ir.Expr:
    """The value as int32."""
    return value.astype("int32")


def _inside(index: ir.Expr, extent: int) -> ir.Expr:
    return tirx.all(index >= 0, index < extent)


def _window(
    attrs: dict, kernel: Sequence[int]
) -> Callable[[ir.Expr, ir.Expr, ir.Expr, ir.Expr], tuple[ir.Expr, ir.Expr]]:
    """Input coordinates of one element of an output's window."""
    top, left = attrs["padding"][:2]
    stride_h, stride_w = attrs["strides"]
    dilation_h, dilation_w = attrs["dilation"]

    def place(y: ir.Expr, x: ir.Expr, ky: ir.Expr, kx: ir.Expr) -> tuple[ir.Expr, ir.Expr]:
        return y * stride_h + ky * dilation_h - top, x * stride_w + kx * dilation_w - left

    return place


def _windows(attrs: dict, size: int, kernel: int, axis: int) -> int:
    """How many windows there are along one axis."""
    padding = attrs["padding"][axis] + attrs["padding"][axis + 2]
    reach = attrs["dilation"][axis] * (kernel - 1) + 1
    return (size + padding - reach) // attrs["strides"][axis] + 1


@legalizes("conv2d")
def _conv2d(
    attrs: dict, x: te.Tensor, weight: te.Tensor, bias: te.Tensor, multiplier: te.Tensor
) -> te.Tensor:
    batch, height, width, _ = (int(extent) for extent in x.shape)
    channels, kernel_h, kernel_w, inputs = (int(extent) for extent in weight.shape)
    group = channels // attrs["groups"]
    place = _window(attrs, (kernel_h, kernel_w))
    ky = te.reduce_axis((0, kernel_h), name="ky")
    kx = te.reduce_axis((0, kernel_w), name="kx")
    i = te.reduce_axis((0, inputs), name="i")
    shape = (
        batch,
        _windows(attrs, height, kernel_h, 0),
        _windows(attrs, width, kernel_w, 1),
        channels,
    )

    def accumulated(n: ir.Expr, y: ir.Expr, column: ir.Expr, o: ir.Expr) -> ir.Expr:
        row, col = place(y, column, ky.var, kx.var)
        value = tirx.if_then_else(
            tirx.all(_inside(row, height), _inside(col, width)),
            wide(x(n, row, col, (o // group) * inputs + i.var)),
            tirx.const(attrs["input_zero"], "int32"),
        )
        return te.sum(value * wide(weight(o, ky, kx, i)), axis=[ky, kx, i])

    total = te.compute(shape, accumulated, name="accumulator")
    return te.compute(
        shape,
        lambda *at: _requantized(attrs, total(*at), bias(at[3]), multiplier(at[3])),
        name="conv2d",
    )


@legalizes("dense")
def _dense(
    attrs: dict, x: te.Tensor, weight: te.Tensor, bias: te.Tensor, multiplier: te.Tensor
) -> te.Tensor:
    channels, inputs = (int(extent) for extent in weight.shape)
    i = te.reduce_axis((0, inputs), name="i")
    shape = (*x.shape[:-1], channels)
    total = te.compute(
        shape,
        lambda *at: te.sum(wide(x(*at[:-1], i)) * wide(weight(at[-1], i)), axis=i),
        name="accumulator",
    )
    return te.compute(
        shape,
        lambda *at: _requantized(attrs, total(*at), bias(at[-1]), multiplier(at[-1])),
        name="dense",
    )


def broadcast(tensor: te.Tensor, at: Index) -> list[ir.Expr]:
    """Indices of a tensor that is broadcast to a result with indices `at`."""
    own = at[len(at) - len(tensor.shape) :]
    return [
        tirx.const(0, "int64") if int(extent) == 1 else index
        for extent, index in zip(tensor.shape, own, strict=True)
    ]


def broadcast_shape(*shapes: Sequence[ir.Expr]) -> list[int]:
    """The shape that tensors of these shapes broadcast to."""
    rank = max(len(shape) for shape in shapes)
    padded = [[1] * (rank - len(shape)) + [int(extent) for extent in shape] for shape in shapes]
    return [max(extents) for extents in zip(*padded, strict=True)]


@legalizes("matmul")
def _matmul(attrs: dict, a: te.Tensor, b: te.Tensor) -> te.Tensor:
    k = te.reduce_axis((0, int(a.shape[-1])), name="k")
    batch = broadcast_shape(a.shape[:-2], b.shape[:-2])
    shape = (*batch, a.shape[-2], b.shape[-1])

    def accumulated(*at: ir.Expr) -> ir.Expr:
        left = a(*broadcast(a, (*at[:-1], k.var)))
        right = b(*broadcast(b, (*at[:-2], k.var, at[-1])))
        return te.sum((wide(left) - attrs["a_zero"]) * (wide(right) - attrs["b_zero"]), axis=k)

    total = te.compute(shape, accumulated, name="accumulator")
    bias, multiplier = tirx.const(attrs["bias"], "int32"), tirx.const(attrs["multiplier"], "int32")
    return te.compute(
        shape, lambda *at: _requantized(attrs, total(*at), bias, multiplier), name="matmul"
    )


@legalizes("add")
def _add(attrs: dict, a: te.Tensor, b: te.Tensor) -> te.Tensor:
    def element(*at: ir.Expr) -> ir.Expr:
        left = wide(a(*broadcast(a, at))) * attrs["a_multiplier"]
        right = wide(b(*broadcast(b, at))) * attrs["b_multiplier"]
        return clamped(attrs, (left + right + attrs["bias"]) >> attrs["shift"])

    return te.compute(broadcast_shape(a.shape, b.shape), element, name="add")


@legalizes("multiply")
def _multiply(attrs: dict, a: te.Tensor, b: te.Tensor) -> te.Tensor:
    bias, multiplier = tirx.const(attrs["bias"], "int32"), tirx.const(attrs["multiplier"], "int32")

    def element(*at: ir.Expr) -> ir.Expr:
        left = wide(a(*broadcast(a, at))) - attrs["a_zero"]
        right = wide(b(*broadcast(b, at))) - attrs["b_zero"]
        return _requantized(attrs, left * right, bias, multiplier)

    return te.compute(broadcast_shape(a.shape, b.shape), element, name="multiply")


@legalizes("lookup")
def _lookup(_attrs: dict, x: te.Tensor, table: te.Tensor) -> te.Tensor:
    return te.compute(x.shape, lambda *at: table(wide(x(*at)) + 128), name="lookup")


@legalizes("average_pool2d")
def _average_pool2d(attrs: dict, x: te.Tensor, bias: te.Tensor, multiplier: te.Tensor) -> te.Tensor:
    batch, height, width, channels = (int(extent) for extent in x.shape)
    kernel_h, kernel_w = attrs["kernel"]
    attrs = {**attrs, "dilation": [1, 1]}
    include = bool(attrs["count_include_pad"])
    place = _window(attrs, (kernel_h, kernel_w))
    ky = te.reduce_axis((0, kernel_h), name="ky")
    kx = te.reduce_axis((0, kernel_w), name="kx")
    shape = (
        batch,
        _windows(attrs, height, kernel_h, 0),
        _windows(attrs, width, kernel_w, 1),
        channels,
    )

    def summed(n: ir.Expr, y: ir.Expr, column: ir.Expr, c: ir.Expr) -> ir.Expr:
        row, col = place(y, column, ky.var, kx.var)
        value = tirx.if_then_else(
            tirx.all(_inside(row, height), _inside(col, width)),
            wide(x(n, row, col, c)),
            tirx.const(attrs["input_zero"] if include else 0, "int32"),
        )
        return te.sum(value, axis=[ky, kx])

    total = te.compute(shape, summed, name="sum")

    def inside(start: ir.Expr, kernel: int, size: int) -> ir.Expr:
        """How many elements of a window lie inside the image."""
        return tirx.min(start + kernel, size) - tirx.max(start, 0)

    def element(*at: ir.Expr) -> ir.Expr:
        if include:
            index = tirx.const(kernel_h * kernel_w - 1, "int64")
        else:
            row, col = place(at[1], at[2], tirx.const(0, "int64"), tirx.const(0, "int64"))
            rows, cols = inside(row, kernel_h, height), inside(col, kernel_w, width)
            some = tirx.all(rows > 0, cols > 0)
            index = tirx.Select(some, rows * cols - 1, tirx.const(0, "int64"))
        return _requantized(attrs, total(*at), bias(index), multiplier(index))

    return te.compute(shape, element, name="average_pool2d")


@legalizes("max_pool2d")
def _max_pool2d(attrs: dict, x: te.Tensor) -> te.Tensor:
    batch, height, width, channels = (int(extent) for extent in x.shape)
    kernel_h, kernel_w = attrs["kernel"]
    place = _window(attrs, (kernel_h, kernel_w))
    ky = te.reduce_axis((0, kernel_h), name="ky")
    kx = te.reduce_axis((0, kernel_w), name="kx")
    shape = (
        batch,
        _windows(attrs, height, kernel_h, 0),
        _windows(attrs, width, kernel_w, 1),
        channels,
    )

    def largest(n: ir.Expr, y: ir.Expr, column: ir.Expr, c: ir.Expr) -> ir.Expr:
        row, col = place(y, column, ky.var, kx.var)
        value = tirx.if_then_else(
            tirx.all(_inside(row, height), _inside(col, width)),
            x(n, row, col, c),
            tirx.const(-128, "int8"),
        )
        return te.max(value, axis=[ky, kx])

    return te.compute(shape, largest, name="max_pool2d")


@legalizes("softmax")
def _softmax(attrs: dict, x: te.Tensor, table: te.Tensor) -> te.Tensor:
    length = int(x.shape[-1])
    rows = x.shape[:-1]
    k = te.reduce_axis((0, length), name="k")
    largest = te.compute(rows, lambda *at: te.max(x(*at, k), axis=k), name="largest")

    def exponential(*at: ir.Expr) -> ir.Expr:
        return table(wide(largest(*at[:-1])) - wide(x(*at)))

    j = te.reduce_axis((0, length), name="j")
    exact = "int32" if length < 2**16 else "int64"
    total = te.compute(
        rows,
        lambda *at: te.sum(exponential(*at, j.var).astype(exact), axis=j),
        name="total",
    )
    # An entry is at most 2^15 and the largest is 2^15, so the reciprocal is at most 2^16.
    reciprocal = te.compute(
        rows,
        lambda *at: tirx.floordiv(tirx.const(2**31, "int64"), total(*at).astype("int64")),
        name="reciprocal",
    )

    def element(*at: ir.Expr) -> ir.Expr:
        share = (exponential(*at).astype("int64") * reciprocal(*at[:-1])) >> tirx.const(15, "int64")
        scaled = share * tirx.const(attrs["multiplier"], "int64") + tirx.const(
            attrs["bias"], "int64"
        )
        return clamped(attrs, scaled >> tirx.const(attrs["shift"], "int64"))

    return te.compute(x.shape, element, name="softmax")
