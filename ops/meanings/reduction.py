"""Reductions over axes, and running sums and products."""

from __future__ import annotations

from collections.abc import Callable

import torch

from ..registry import meaning
from .common import Call, is_integer, optional_axes, torch_dtype

Tensor = torch.Tensor


def _axes(call: Call, x: Tensor) -> tuple[int, ...]:
    axes = optional_axes(call.attrs.axis)
    chosen = range(x.dim()) if axes is None else axes
    return tuple(sorted({axis % x.dim() for axis in chosen})) if x.dim() else ()


def _reduction(name: str, function: Callable[[Tensor, tuple[int, ...], bool], Tensor]) -> None:
    @meaning(f"relax.{name}")
    def run(call: Call, x: Tensor) -> Tensor:
        axes = _axes(call, x)
        # An empty list of axes means "all" to torch, but nothing to reduce here.
        return function(x, axes, bool(call.attrs.keepdims)) if axes else _of_nothing(name, x)


def _of_nothing(name: str, x: Tensor) -> Tensor:
    return torch.zeros_like(x) if name in ("variance", "std") else x


def _sum(x: Tensor, axes: tuple[int, ...], keep: bool) -> Tensor:
    return torch.sum(x, axes, keep, dtype=x.dtype if is_integer(x) else None)


def _mean(x: Tensor, axes: tuple[int, ...], keep: bool) -> Tensor:
    if not is_integer(x):
        return torch.mean(x, axes, keep)
    count = 1
    for axis in axes:
        count *= x.shape[axis]
    return torch.div(torch.sum(x, axes, keep), count, rounding_mode="trunc").to(x.dtype)


def _prod(x: Tensor, axes: tuple[int, ...], keep: bool) -> Tensor:
    for axis in reversed(axes):
        x = torch.prod(x, axis, keep, dtype=x.dtype)
    return x


_reduction("sum", _sum)
_reduction("mean", _mean)
_reduction("prod", _prod)
_reduction("max", torch.amax)
_reduction("min", torch.amin)
_reduction("variance", lambda x, axes, keep: torch.var(x, axes, correction=0, keepdim=keep))
_reduction("std", lambda x, axes, keep: torch.std(x, axes, correction=0, keepdim=keep))


@meaning("relax.median")
def median(call: Call, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
    """The middle element (of two, the lower) and, along one axis, its index."""
    axes = optional_axes(call.attrs.axis)
    keep = bool(call.attrs.keepdims)
    if axes is None:
        result = torch.median(x.reshape(-1), 0).values
        return result.reshape([1] * x.dim()) if keep else result
    values, indices = torch.median(x, axes[0], keepdim=keep)
    return values, indices


def _running(function: Callable[[Tensor, int], Tensor], start: int, call: Call, x: Tensor):
    attrs = call.attrs
    if attrs.axis is None:
        x = x.reshape(-1)
    axis = 0 if attrs.axis is None else int(attrs.axis) % x.dim()
    kind = torch_dtype(attrs.dtype) if attrs.dtype else x.dtype
    result = function(x.to(kind), axis).to(kind)
    if attrs.exclusive:
        first = torch.full_like(result.narrow(axis, 0, 1), start)
        result = torch.cat([first, result.narrow(axis, 0, result.shape[axis] - 1)], axis)
    return result


@meaning("relax.cumsum")
def cumsum(call: Call, x: Tensor) -> Tensor:
    """Running sum along an axis; `exclusive` leaves each element itself out."""
    return _running(torch.cumsum, 0, call, x)


@meaning("relax.cumprod")
def cumprod(call: Call, x: Tensor) -> Tensor:
    """Running product along an axis; `exclusive` leaves each element itself out."""
    return _running(torch.cumprod, 1, call, x)
