"""TIR intrinsics as calls of the functions in ``float_math.h``, ``tir.h`` and ``isa.h``."""

from __future__ import annotations

import math

import numpy as np
from tvm import ir
from tvm.ir import prim

from . import interval as iv
from .bits import shift
from .conversions import reinterpreted
from .expressions import ExpressionPrinter, float_literal, prints
from .interval import Interval
from .logic import choose
from .text import ATOM, UNARY, Text

#: Functions of ``float_math.h`` for TIR's calls on float32.
MATH = {
    **{
        name: f"fb_{name}f"
        for name in (
            "acos", "acosh", "asin", "asinh", "atan", "atan2", "atanh", "ceil", "copysign", "cos",
            "cosh", "erf", "exp", "exp10", "exp2", "fabs", "floor", "fmod", "log", "log10",
            "log1p", "log2", "nearbyint", "pow", "round", "sin", "sinh", "sqrt", "tan", "tanh",
            "trunc",
        )
    },
    "rsqrt": "fb_rsqrtf",
    "sigmoid": "fb_sigmoidf",
}  # fmt: skip
#: Those of them that keep a value between the integers around it.
ROUNDINGS = frozenset({"ceil", "floor", "nearbyint", "round", "trunc"})
#: Functions that exist for float64 as well.
DOUBLE_MATH = ROUNDINGS | {"exp", "fabs", "fmod", "log", "pow", "sqrt"}
TESTS = {"isnan": "fb_isnan", "isinf": "fb_isinf", "isfinite": "fb_isfinite"}


@prints(ir.Call)
def _call(printer: ExpressionPrinter, call: ir.Call) -> Text:
    name = str(getattr(call.op, "name", call.op)).split(".")[-1]
    if name == "if_then_else":
        return choose(printer, *call.args)
    bound, printer.index_bound = printer.index_bound, None
    text = _function_call(printer, call, name)
    printer.index_bound = bound
    return text


def _function_call(printer: ExpressionPrinter, call: ir.Call, name: str) -> Text:
    if name in ("likely", "ret"):
        return printer(call.args[0])
    if name == "shift_left":
        return shift(printer.dtype(call), printer(call.args[0]), printer(call.args[1]))
    if name in TESTS:
        code = f"{TESTS[name]}({printer(call.args[0]).code})"
        return Text(code, ATOM, "bool", Interval(0, 1))
    dtype = printer.dtype(call)
    if name == "high_product":
        value, multiplier = (printer(argument) for argument in call.args)
        code = f"fb_mulh({value.code}, {multiplier.code})"
        return Text(code, ATOM, dtype, iv.of_dtype(dtype))
    if name == "reinterpret":
        return reinterpreted(printer, call, dtype)
    if name in ("popcount", "clz"):
        value = printer(call.args[0])
        bits = iv.INTEGER_BITS[printer.dtype(call.args[0])][0]
        unsigned = "uint64_t" if bits == 64 else f"uint{bits}_t"
        code = f"fb_tir_{name}(({unsigned}){value.within(UNARY)}"
        code += ")" if name == "popcount" else f", {bits})"
        return Text(code, ATOM, dtype, Interval(0, bits))
    if dtype not in iv.FLOATS or name not in MATH:
        raise printer.refusal(f"TIR's {name} of {dtype}")
    if dtype == "float64" and name not in DOUBLE_MATH:
        raise printer.refusal(f"{name} in float64")
    function = MATH[name] if dtype == "float32" else f"fb_{name}"
    if name == "sqrt" and isinstance(call.args[0], prim.FloatImm):
        root = np.sqrt(np.dtype(dtype).type(call.args[0].value))  # as exact as fb_sqrt
        return float_literal(printer, prim.FloatImm(dtype, float(root)))
    arguments = [printer(argument) for argument in call.args]
    known = iv.of_dtype(dtype)
    if name in ROUNDINGS:
        known = _rounded(arguments[0].range)
    code = f"{function}({', '.join(argument.code for argument in arguments)})"
    return Text(code, ATOM, dtype, known)


def _rounded(known: Interval) -> Interval:
    low = known.low if math.isinf(known.low) else math.floor(known.low)
    high = known.high if math.isinf(known.high) else math.ceil(known.high)
    return Interval(low, high, known.nan)
