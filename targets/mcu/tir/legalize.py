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

from ....ops.compressed import legalize_activations, legalize_decode  # noqa: F401  (they register)
from ....ops.compressed.legalize import COMPRESSED

#: TVM starts their maxima at the lowest finite float, the oracle at minus infinity.
STARTS_AT_INFINITY = frozenset(
    {"relax.max", "relax.min"} | {f"relax.nn.max_pool{rank}d" for rank in (1, 2, 3)}
)

Legalization = Callable[[relax.BlockBuilder, relax.Call], relax.Expr]

#: For ``relax.transform.LegalizeOps``, by operator.
LEGALIZATIONS: dict[str, Legalization] = {**COMPRESSED}


def legalizes(*names: str) -> Callable[[Legalization], Legalization]:
    """Decorator: the function legalizes these operators."""

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


def _along(parameter: te.Tensor | ir.Expr, indices: Sequence[ir.Expr], axis: int) -> ir.Expr:
    """Scale or zero point for one element."""
    if not isinstance(parameter, te.Tensor):
        return parameter
    if all(int(extent) == 1 for extent in parameter.shape):
        return parameter(*([0] * len(parameter.shape)))
    return parameter(indices[axis])


@legalizes("relax.quantize")
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


@legalizes("relax.dequantize")
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


@legalizes("relax.nn.rms_norm")
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


def _running(function: Callable[..., te.Tensor]) -> Legalization:
    def legalize(builder: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
        attrs = call.attrs
        axis = None if attrs.axis is None else int(attrs.axis)
        dtype = str(attrs.dtype) if attrs.dtype else str(call.args[0].ty.dtype)
        return builder.call_te(function, call.args[0], axis, dtype, bool(attrs.exclusive))

    return legalize


LEGALIZATIONS["relax.cumsum"] = _running(topi.cumsum)
LEGALIZATIONS["relax.cumprod"] = _running(topi.cumprod)


def several(variables: ir.Var | Sequence[ir.Var]) -> list[ir.Expr]:
    """The variables of a loop nest, of which ``T.grid`` gives a single one bare."""
    return [variables] if isinstance(variables, ir.Var) else list(variables)
