"""Legalizations that generated C needs otherwise than TVM has them.

TVM sends sorting and running sums to library calls, rounds quantization half away from zero where
ONNX rounds half to even, and trusts indices that come from data. Here everything is loops, means
what the oracle in ``ops/meanings`` means, and reads no foreign memory whatever an index is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from tvm import ir, relax, te, tirx, topi
from tvm.ir import prim
from tvm.script.ir_builder import IRBuilder
from tvm.script.ir_builder import tirx as T

#: TVM starts their maxima at the lowest finite float, the oracle at minus infinity.
STARTS_AT_INFINITY = frozenset(
    {"relax.max", "relax.min"} | {f"relax.nn.max_pool{rank}d" for rank in (1, 2, 3)}
)

Legalization = Callable[[relax.BlockBuilder, relax.Call], relax.Expr]

#: For ``relax.transform.LegalizeOps``, by operator.
LEGALIZATIONS: dict[str, Legalization] = {}


def _legalizes(*names: str) -> Callable[[Legalization], Legalization]:
    def register(function: Legalization) -> Legalization:
        for name in names:
            LEGALIZATIONS[name] = function
        return function

    return register


def _scalar(value: relax.Expr) -> relax.Expr:
    """A scalar constant as a number that is compiled in."""
    if isinstance(value, ir.GenericConst) and not value.ty.shape.values:
        number, dtype = value.value.numpy().item(), str(value.ty.dtype)
        make = prim.FloatImm if dtype.startswith("float") else prim.IntImm
        return make(dtype, number)
    return value


# Quantization.


def _along(parameter: te.Tensor | ir.Expr, indices: Sequence[ir.Expr], axis: int) -> ir.Expr:
    """Scale or zero point for one element."""
    if not isinstance(parameter, te.Tensor):
        return parameter
    if all(int(extent) == 1 for extent in parameter.shape):
        return parameter(*([0] * len(parameter.shape)))
    return parameter(indices[axis])


@_legalizes("relax.quantize")
def _quantize(builder: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
    axis, dtype = int(call.attrs.axis), str(call.attrs.out_dtype)
    low, high = (int(limit(dtype)) for limit in (tirx.min_value, tirx.max_value))

    def quantize(x: te.Tensor, scale: te.Tensor | ir.Expr, zero: te.Tensor | ir.Expr) -> te.Tensor:
        def code(*indices: ir.Expr) -> ir.Expr:
            quotient = x(*indices).astype("float32") / _along(scale, indices, axis)
            # Codes have at most 16 bits, which float32 holds exactly.
            total = tirx.nearbyint(quotient) + _along(zero, indices, axis).astype("float32")
            limits = (prim.FloatImm("float32", high), prim.FloatImm("float32", low))
            return tirx.max(tirx.min(total, limits[0]), limits[1]).astype(dtype)

        return te.compute(x.shape, code, name="quantized")

    x, scale, zero = call.args
    return builder.call_te(quantize, x, _scalar(scale), _scalar(zero))


@_legalizes("relax.dequantize")
def _dequantize(builder: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
    axis, dtype = int(call.attrs.axis), str(call.attrs.out_dtype)

    def dequantize(
        x: te.Tensor, scale: te.Tensor | ir.Expr, zero: te.Tensor | ir.Expr
    ) -> te.Tensor:
        narrow = str(x.dtype) in ("int8", "uint8", "int16", "uint16")
        exact = "int32" if narrow else "int64" if "int" in str(x.dtype) else "float32"

        def real(*indices: ir.Expr) -> ir.Expr:
            offset = _along(zero, indices, axis).astype(exact)
            difference = (x(*indices).astype(exact) - offset).astype("float32")
            return (difference * _along(scale, indices, axis).astype("float32")).astype(dtype)

        return te.compute(x.shape, real, name="dequantized")

    x, scale, zero = call.args
    return builder.call_te(dequantize, x, _scalar(scale), _scalar(zero))


@_legalizes("relax.nn.rms_norm")
def _rms_norm(builder: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
    """TVM's own fails where all axes are normalized."""
    epsilon = float(call.attrs.epsilon)

    def rms_norm(x: te.Tensor, weight: te.Tensor) -> te.Tensor:
        axes = [int(axis) % len(x.shape) for axis in call.attrs.axes]
        count = math.prod(int(x.shape[axis]) for axis in axes)
        squares = topi.sum(topi.multiply(x, x), axes, keepdims=True)

        def scale(*at: ir.Expr) -> ir.Expr:
            return tirx.rsqrt(squares(*at) / float(count) + epsilon)

        scales = te.compute(squares.shape, scale, name="scale")
        return topi.multiply(topi.multiply(x, scales), weight)

    return builder.call_te(rms_norm, *call.args)


# Indices that come from data.


def _inside(index: ir.Expr, extent: int, mode: str = "fast") -> ir.Expr:
    """An index made non-negative as `mode` says, and never outside [0, extent)."""
    length = prim.IntImm(str(index.ty.dtype), int(extent))
    if mode == "wrap":
        return tirx.floormod(index, length)
    if mode != "clip" and not str(index.ty.dtype).startswith("u"):
        index = tirx.if_then_else(index < 0, index + length, index)
    return tirx.max(tirx.min(index, length - 1), tirx.const(0, str(index.ty.dtype)))


@_legalizes("relax.take")
def _take(builder: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
    mode = str(call.attrs.mode)
    x, indices = call.args
    axis = call.attrs.axis
    if not isinstance(indices.ty, relax.TensorType):
        indices = relax.const(int(indices), "int64")

    def take(data: te.Tensor, indices: te.Tensor) -> te.Tensor:
        if axis is None:
            data = topi.reshape(data, (math.prod(int(extent) for extent in data.shape),))
        at = 0 if axis is None else int(axis) % len(data.shape)
        rank = len(indices.shape)
        shape = [*data.shape[:at], *indices.shape, *data.shape[at + 1 :]]

        def element(*place: ir.Expr) -> ir.Expr:
            index = _inside(indices(*place[at : at + rank]), data.shape[at], mode)
            return data(*place[:at], index, *place[at + rank :])

        return te.compute(shape, element, name="taken")

    return builder.call_te(take, x, indices)


@_legalizes("relax.gather_elements")
def _gather_elements(builder: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
    def gather_elements(data: te.Tensor, indices: te.Tensor) -> te.Tensor:
        axis = int(call.attrs.axis) % len(data.shape)

        def element(*place: ir.Expr) -> ir.Expr:
            index = _inside(indices(*place), data.shape[axis])
            return data(*place[:axis], index, *place[axis + 1 :])

        return te.compute(indices.shape, element, name="gathered")

    return builder.call_te(gather_elements, *call.args)


@_legalizes("relax.gather_nd")
def _gather_nd(builder: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
    batch = int(call.attrs.batch_dims)

    def gather_nd(data: te.Tensor, indices: te.Tensor) -> te.Tensor:
        depth, rank = int(indices.shape[-1]), len(indices.shape)
        shape = [*indices.shape[:-1], *data.shape[batch + depth :]]

        def element(*place: ir.Expr) -> ir.Expr:
            outer, inner = place[: rank - 1], place[rank - 1 :]
            chosen = [
                _inside(indices(*outer, part), data.shape[batch + part]) for part in range(depth)
            ]
            return data(*outer[:batch], *chosen, *inner)

        return te.compute(shape, element, name="gathered")

    return builder.call_te(gather_nd, *call.args)


_COMBINE = {
    "update": lambda _old, new: new,
    "none": lambda _old, new: new,
    "add": lambda old, new: old + new,
    "mul": lambda old, new: old * new,
    "min": tirx.min,
    "max": tirx.max,
}


def _scatter(
    data: te.Tensor,
    indices: te.Tensor,
    updates: te.Tensor,
    reduction: str,
    place: Callable[[ir.Var, list[ir.Expr]], list[ir.Expr]],
) -> te.Tensor:
    """A copy of `data` with every update combined into the element that `place` names."""
    output = tirx.decl_buffer(data.shape, data.dtype, "scattered", layout=None)

    def body(ins: Sequence[ir.Var], outs: Sequence[ir.Var]) -> tirx.Stmt:
        with IRBuilder() as builder:
            with T.seq_scope():
                with T.grid(*data.shape) as at:
                    at = _several(at)
                    T.buffer_store(outs[0], ins[0][tuple(at)], at)
                with T.grid(*updates.shape) as at:
                    at = _several(at)
                    target = place(ins[1], at)
                    old, new = outs[0][tuple(target)], ins[2][tuple(at)]
                    T.buffer_store(outs[0], _COMBINE[reduction](old, new), target)
            return builder.get()

    return te.extern(
        [data.shape],
        [data, indices, updates],
        body,
        dtype=data.dtype,
        out_buffers=[output],
        name="scatter",
    )


def _several(variables: ir.Var | Sequence[ir.Var]) -> list[ir.Expr]:
    return [variables] if isinstance(variables, ir.Var) else list(variables)


@_legalizes("relax.scatter_elements")
def _scatter_elements(builder: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
    reduction = str(call.attrs.reduction)

    def scatter_elements(data: te.Tensor, indices: te.Tensor, updates: te.Tensor) -> te.Tensor:
        axis = int(call.attrs.axis) % len(data.shape)

        def place(buffer: ir.Var, at: list[ir.Expr]) -> list[ir.Expr]:
            index = _inside(buffer[tuple(at)], data.shape[axis])
            return [*at[:axis], index, *at[axis + 1 :]]

        return _scatter(data, indices, updates, reduction, place)

    return builder.call_te(scatter_elements, *call.args)


@_legalizes("relax.scatter_nd")
def _scatter_nd(builder: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
    reduction = str(call.attrs.reduction)

    def scatter_nd(data: te.Tensor, indices: te.Tensor, updates: te.Tensor) -> te.Tensor:
        depth, rank = int(indices.shape[-1]), len(indices.shape)

        def place(buffer: ir.Var, at: list[ir.Expr]) -> list[ir.Expr]:
            outer, inner = at[: rank - 1], at[rank - 1 :]
            chosen = [
                _inside(buffer[(*outer, prim.IntImm("int64", part))], data.shape[part])
                for part in range(depth)
            ]
            return [*chosen, *inner]

        return _scatter(data, indices, updates, reduction, place)

    return builder.call_te(scatter_nd, *call.args)


# Order.


def _precedes(a: ir.Expr, b: ir.Expr, descending: bool) -> tuple[ir.Expr, ir.Expr]:
    """Whether `a` comes before `b`, and whether they are equal. NaN counts as the largest."""
    first, second = (a, b) if descending else (b, a)
    larger, equal = first > second, a == b
    if str(a.ty.dtype).startswith("float"):
        larger = tirx.any(larger, tirx.all(tirx.isnan(first), tirx.Not(tirx.isnan(second))))
        equal = tirx.any(equal, tirx.all(tirx.isnan(a), tirx.isnan(b)))
    return larger, equal


def _sorted(
    data: te.Tensor, axis: int, count: int, descending: bool, index_dtype: str, which: str
) -> te.Tensor | list[te.Tensor]:
    """The first `count` values in order along an axis, or their indices, or both.

    Each element's place is the number of elements that come before it, so nothing is moved twice
    and no memory is needed; the time is quadratic in the axis' length.
    """
    axis %= len(data.shape)
    shape = [*data.shape[:axis], count, *data.shape[axis + 1 :]]
    length = int(data.shape[axis])
    dtypes = {"values": str(data.dtype), "indices": index_dtype}
    wanted = [kind for kind in dtypes if which in (kind, "both")]

    def body(ins: Sequence[ir.Var], outs: Sequence[ir.Var]) -> tirx.Stmt:
        with IRBuilder() as builder:
            with T.seq_scope():
                rank = T.alloc_buffer((1,), "int32")
                with T.grid(*data.shape) as at:
                    at = _several(at)
                    here = ins[0][tuple(at)]
                    T.buffer_store(rank, prim.IntImm("int32", 0), [0])
                    with T.serial(0, length) as other:
                        there = ins[0][(*at[:axis], other, *at[axis + 1 :])]
                        before, equal = _precedes(there, here, descending)
                        earlier = tirx.all(equal, other < at[axis])
                        with T.If(tirx.any(before, earlier)), T.Then():
                            T.buffer_store(rank, rank[0] + 1, [0])
                    place = [*at[:axis], rank[0], *at[axis + 1 :]]
                    found = {"values": here, "indices": at[axis].astype(index_dtype)}
                    with T.If(rank[0] < count), T.Then():
                        for kind, output in zip(wanted, outs, strict=True):
                            T.buffer_store(output, found[kind], place)
            return builder.get()

    return te.extern(
        [shape] * len(wanted),
        [data],
        body,
        dtype=[dtypes[kind] for kind in wanted],
        out_buffers=[tirx.decl_buffer(shape, dtypes[kind], kind, layout=None) for kind in wanted],
        name="sorted",
    )


@_legalizes("relax.sort")
def _sort(builder: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
    axis, descending = int(call.attrs.axis), bool(call.attrs.descending)

    def sort(data: te.Tensor) -> te.Tensor | list[te.Tensor]:
        return _sorted(data, axis, int(data.shape[axis]), descending, "int32", "values")

    return builder.call_te(sort, call.args[0])


@_legalizes("relax.argsort")
def _argsort(builder: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
    axis, descending = int(call.attrs.axis), bool(call.attrs.descending)
    dtype = str(call.attrs.dtype)

    def argsort(data: te.Tensor) -> te.Tensor | list[te.Tensor]:
        return _sorted(data, axis, int(data.shape[axis]), descending, dtype, "indices")

    return builder.call_te(argsort, call.args[0])


@_legalizes("relax.topk")
def _topk(builder: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
    attrs = call.attrs
    axis, dtype, which = int(attrs.axis), str(attrs.dtype), str(attrs.ret_type)

    def topk(data: te.Tensor) -> te.Tensor | list[te.Tensor]:
        count = int(attrs.k) if int(attrs.k) >= 1 else int(data.shape[axis])
        return _sorted(data, axis, count, bool(attrs.largest), dtype, which)

    return builder.call_te(topk, call.args[0])


def _arg_extreme(largest: bool) -> Legalization:
    """Index of the first largest or smallest element."""

    def legalize(builder: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
        axis, keep = call.attrs.axis, bool(call.attrs.keepdims)

        def pick(a: tuple[ir.Expr, ir.Expr], b: tuple[ir.Expr, ir.Expr]) -> tuple[ir.Expr, ir.Expr]:
            better = a[1] > b[1] if largest else a[1] < b[1]
            wins = tirx.any(better, tirx.all(a[1] == b[1], a[0] < b[0]))
            return tirx.Select(wins, a[0], b[0]), tirx.Select(better, a[1], b[1])

        def worst(index: object, value: object) -> tuple[ir.Expr, ir.Expr]:
            name = str(value)
            if name.startswith("float"):
                bound = prim.FloatImm(name, float("-inf") if largest else float("inf"))
            else:
                bound = tirx.min_value(name) if largest else tirx.max_value(name)
            return tirx.max_value(str(index)), bound

        best = te.comm_reducer(pick, worst, name="best")

        def arg_extreme(data: te.Tensor) -> te.Tensor:
            if axis is None:
                flat = topi.reshape(data, (math.prod(int(extent) for extent in data.shape),))
                shape = [1] * len(data.shape) if keep else []
                at = 0
            else:
                flat = data
                at = int(axis) % len(data.shape)
                middle = [1] if keep else []
                shape = [*data.shape[:at], *middle, *data.shape[at + 1 :]]
            k = te.reduce_axis((0, flat.shape[at]), name="k")

            def element(*place: ir.Expr) -> tuple[ir.Expr, ...]:
                rest = [] if axis is None else [*place[:at], *place[at + keep :]]
                value = flat(*rest[:at], k, *rest[at:])
                return best((k.var.astype("int32"), value), axis=k)

            index, _ = te.compute(shape, element, name="arg")
            return te.compute(shape, lambda *place: index(*place).astype("int64"), name="index")

        return builder.call_te(arg_extreme, call.args[0])

    return legalize


LEGALIZATIONS["relax.argmax"] = _arg_extreme(largest=True)
LEGALIZATIONS["relax.argmin"] = _arg_extreme(largest=False)


# Running sums and products.


def _running(function: Callable[..., te.Tensor]) -> Legalization:
    def legalize(builder: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
        attrs = call.attrs
        axis = None if attrs.axis is None else int(attrs.axis)
        dtype = str(attrs.dtype) if attrs.dtype else str(call.args[0].ty.dtype)
        return builder.call_te(function, call.args[0], axis, dtype, bool(attrs.exclusive))

    return legalize


LEGALIZATIONS["relax.cumsum"] = _running(topi.cumsum)
LEGALIZATIONS["relax.cumprod"] = _running(topi.cumprod)
