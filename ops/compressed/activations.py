"""Activations in few bits: fake quantization, static or at run time, and LLM.int8's outliers."""

from __future__ import annotations

from typing import Any

import torch
from tvm import relax

from ...errors import FewbitsError
from ...formats.base import NumberFormat
from ...formats.parse import parse_format
from ..registry import define, make_call
from .rounding import round_to

_SMALLEST = 2.0**-126
GRANULARITIES = ("tensor", "token")


def fake_quantize_call(
    x: relax.Expr,
    number_format: NumberFormat,
    granularity: str = "token",
    scale: relax.Expr | None = None,
) -> relax.Call:
    """`x` rounded to few bits, still float32.

    Args:
        x: float32 of any shape.
        number_format: the levels.
        granularity: ``tensor``, or ``token``: each vector along the last axis has its own scale.
        scale: a float32 scalar constant (static); None to find it at run time (dynamic).

    Raises:
        FewbitsError: ``bad-granularity``: no such granularity, or a static scale per token.
    """
    if granularity not in GRANULARITIES or (scale is not None and granularity != "tensor"):
        raise FewbitsError(
            "bad-granularity",
            f"activations cannot be quantized per {granularity}"
            + ("" if scale is None else " with a static scale"),
            hint="static: tensor; dynamic: tensor or token",
        )
    arguments = [x] if scale is None else [x, scale]
    return make_call(
        "fewbits.fake_quantize", arguments, format=number_format.name, granularity=granularity
    )


def _type_of_x(call: relax.Call) -> relax.TensorType:
    return call.args[0].ty


@define("fewbits.fake_quantize", "Round a tensor to a few-bit format's levels", _type_of_x)
def fake_quantize(
    call: relax.Call, x: torch.Tensor, scale: torch.Tensor | None = None
) -> torch.Tensor:
    """``round(x / scale) * scale`` in float32; without a scale, absmax / reach is the scale.

    The dynamic scale is taken over the tensor or, per token, over the last axis.
    """
    number_format = parse_format(str(call.attrs["format"]))
    if scale is None:
        reach = number_format.reach
        magnitude = x.abs()
        per_token = str(call.attrs["granularity"]) == "token"
        largest = magnitude.amax(-1, keepdim=True) if per_token else magnitude.amax()
        scale = (largest / reach).clamp(min=_SMALLEST)
    return round_to(number_format, x / scale) * scale


def outlier_columns_call(x: relax.Expr, threshold: float, capacity: int) -> relax.Call:
    """The columns (last axis) of `x` that hold an outlier, as a float32 mask [K].

    Args:
        x: float32 [..., K].
        threshold: smallest magnitude of an outlier; 0: there are none (as in LLM.int8).
        capacity: with more outlier columns than this, all columns count as outliers.
    """
    return make_call(
        "fewbits.outlier_columns", [x], threshold=float(threshold), capacity=int(capacity)
    )


def _last_axis(call: relax.Call) -> relax.TensorType:
    tensor_type: Any = relax.TensorType
    return tensor_type((call.args[0].ty.shape.values[-1],), "float32")


@define("fewbits.outlier_columns", "Mask of the columns that hold outliers", _last_axis)
def outlier_columns(call: relax.Call, x: torch.Tensor) -> torch.Tensor:
    """1 where any magnitude along the other axes reaches the threshold (spec 2), else 0."""
    threshold = float(call.attrs["threshold"])
    columns = x.shape[-1]
    if threshold <= 0:
        return torch.zeros(columns, dtype=torch.float32, device=x.device)
    mask = (x.abs().reshape(-1, columns) >= threshold).any(0)
    over = mask.sum() > int(call.attrs["capacity"])
    return (mask | over).to(torch.float32)
