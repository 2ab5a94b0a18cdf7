"""Arithmetic, comparisons, logic and unary mathematics, element by element."""

from __future__ import annotations

from collections.abc import Callable

import torch

from ..registry import meaning
from .common import Call, is_integer, torch_dtype, widened

Tensor = torch.Tensor


def _divide(a: Tensor, b: Tensor) -> Tensor:
    """Real division; on integers towards zero, as in ONNX and C."""
    return torch.div(a, b, rounding_mode="trunc") if is_integer(a) else torch.div(a, b)


def _shift_right(a: Tensor, b: Tensor) -> Tensor:
    return torch.bitwise_right_shift(a, b)


_BINARY: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "add": torch.add,
    "subtract": torch.sub,
    "multiply": torch.mul,
    "divide": _divide,
    "floor_divide": lambda a, b: torch.div(a, b, rounding_mode="floor"),
    "mod": torch.fmod,
    "floor_mod": torch.remainder,
    "power": torch.pow,
    "minimum": torch.minimum,
    "maximum": torch.maximum,
    "atan2": torch.atan2,
    "log_add_exp": torch.logaddexp,
    "equal": torch.eq,
    "not_equal": torch.ne,
    "less": torch.lt,
    "less_equal": torch.le,
    "greater": torch.gt,
    "greater_equal": torch.ge,
    "logical_and": torch.logical_and,
    "logical_or": torch.logical_or,
    "logical_xor": torch.logical_xor,
    "bitwise_and": torch.bitwise_and,
    "bitwise_or": torch.bitwise_or,
    "bitwise_xor": torch.bitwise_xor,
    "left_shift": torch.bitwise_left_shift,
    "right_shift": _shift_right,
}


def _same(x: Tensor) -> Tensor:
    return x


def _on_floats(function: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """Rounding functions, which leave integers alone."""
    return lambda x: x if is_integer(x) else function(x)


_UNARY: dict[str, Callable[[Tensor], Tensor]] = {
    "abs": torch.abs,
    "acos": torch.acos,
    "acosh": torch.acosh,
    "asin": torch.asin,
    "asinh": torch.asinh,
    "atan": torch.atan,
    "atanh": torch.atanh,
    "bitwise_not": torch.bitwise_not,
    "ceil": _on_floats(torch.ceil),
    "cos": torch.cos,
    "cosh": torch.cosh,
    "erf": torch.erf,
    "exp": torch.exp,
    "floor": _on_floats(torch.floor),
    "isfinite": torch.isfinite,
    "isinf": torch.isinf,
    "isnan": torch.isnan,
    "log": torch.log,
    "logical_not": torch.logical_not,
    "negative": torch.neg,
    "round": _on_floats(torch.round),  # half to even
    "rsqrt": torch.rsqrt,
    "sigmoid": torch.sigmoid,
    "sign": torch.sign,
    "sin": torch.sin,
    "sinh": torch.sinh,
    "sqrt": torch.sqrt,
    "square": torch.square,
    "tan": torch.tan,
    "tanh": torch.tanh,
    "trunc": _on_floats(torch.trunc),
}


def _register() -> None:
    for name, function in {**_BINARY, **_UNARY}.items():
        wide = widened(function)
        meaning(f"relax.{name}")(lambda _call, *tensors, wide=wide: wide(*tensors))


_register()


@meaning("relax.ewise_fma")
def ewise_fma(_call: Call, a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    """``a * b + c``, rounded after each operation."""
    return a * b + c


@meaning("relax.clip")
def clip(_call: Call, x: Tensor, minimum: float, maximum: float) -> Tensor:
    """Limit to [minimum, maximum]; NaN stays NaN. Bounds beyond an integer type do nothing."""
    if not is_integer(x):
        return torch.clamp(x, float(minimum), float(maximum))
    limits = torch.iinfo(x.dtype)
    low = int(max(minimum, limits.min))
    high = int(min(maximum, limits.max))
    return widened(lambda value: torch.clamp(value, low, high))(x)


@meaning("relax.where")
def where(_call: Call, condition: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """Elements of `a` where the condition is not zero, else of `b`."""
    return torch.where(condition.to(torch.bool), a, b)


@meaning("relax.astype")
def astype(call: Call, x: Tensor) -> Tensor:
    """Cast. Reals go to integers towards zero and wrap; to FP8 they saturate."""
    kind = torch_dtype(call.attrs.dtype)
    return cast(x, kind)


def cast(x: Tensor, kind: torch.dtype) -> Tensor:
    """`x` as another type, as ONNX's Cast defines it."""
    if kind.is_floating_point and kind.itemsize == 1 and x.dtype != kind:
        limit = torch.finfo(kind).max
        return x.to(torch.float32).clamp(-limit, limit).to(kind)
    if kind == torch.bool:
        return x != 0
    if x.dtype.is_floating_point and not kind.is_floating_point:
        return x.to(torch.int64).to(kind)
    return x.to(kind)
