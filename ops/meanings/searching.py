"""Where the largest elements are: arg reductions, sorting, top k, membership."""

from __future__ import annotations

from collections.abc import Callable

import torch

from ..registry import meaning
from .common import Call, result_dtype, torch_dtype

Tensor = torch.Tensor


def _arg(function: Callable[..., Tensor], call: Call, x: Tensor) -> Tensor:
    axis = call.attrs.axis
    keep = bool(call.attrs.keepdims)
    if axis is None:
        index = function(x.reshape(-1), 0)
        result = index.reshape([1] * x.dim()) if keep else index
    else:
        result = function(x, int(axis), keep)
    return result.to(torch.int64)


def _first(places: Tensor, axis: int, keep: bool) -> Tensor:
    """Index of the first true element: torch.argmax promises no order among equals."""
    size = places.shape[axis]
    shape = [1] * places.dim()
    shape[axis] = size
    index = torch.arange(size, device=places.device).reshape(shape)
    return torch.where(places, index, size - 1).amin(axis, keepdim=keep)


def _first_largest(x: Tensor, axis: int, keep: bool = False) -> Tensor:
    return _first(x == x.amax(axis, keepdim=True), axis, keep)


def _first_smallest(x: Tensor, axis: int, keep: bool = False) -> Tensor:
    return _first(x == x.amin(axis, keepdim=True), axis, keep)


@meaning("relax.argmax")
def argmax(call: Call, x: Tensor) -> Tensor:
    """Index of the first largest element."""
    return _arg(_first_largest, call, x)


@meaning("relax.argmin")
def argmin(call: Call, x: Tensor) -> Tensor:
    """Index of the first smallest element."""
    return _arg(_first_smallest, call, x)


@meaning("relax.sort")
def sort(call: Call, x: Tensor) -> Tensor:
    """Sorted along an axis."""
    axis, descending = int(call.attrs.axis), bool(call.attrs.descending)
    return torch.sort(x, dim=axis, descending=descending, stable=True).values


@meaning("relax.argsort")
def argsort(call: Call, x: Tensor) -> Tensor:
    """The permutation that sorts; equal elements keep their order."""
    axis, descending = int(call.attrs.axis), bool(call.attrs.descending)
    indices = torch.sort(x, dim=axis, descending=descending, stable=True).indices
    return indices.to(torch_dtype(call.attrs.dtype))


@meaning("relax.topk")
def topk(call: Call, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
    """The `k` largest (or smallest) along an axis, in order; equal elements by index."""
    attrs = call.attrs
    axis = int(attrs.axis)
    values, indices = torch.sort(x, dim=axis, descending=bool(attrs.largest), stable=True)
    count = int(attrs.k) if int(attrs.k) >= 1 else x.shape[axis]
    values = values.narrow(axis, 0, count)
    indices = indices.narrow(axis, 0, count).to(torch_dtype(attrs.dtype))
    kind = str(attrs.ret_type)
    if kind == "both":
        return values, indices
    return values if kind == "values" else indices


@meaning("relax.bucketize")
def bucketize(call: Call, x: Tensor, boundaries: Tensor) -> Tensor:
    """Index of the interval between sorted boundaries that holds each element."""
    right = bool(call.attrs.right)
    return torch.searchsorted(boundaries, x, right=right).to(result_dtype(call))


@meaning("relax.nonzero")
def nonzero(_call: Call, x: Tensor) -> Tensor:
    """Indices of the elements that are not zero, [rank, count]; not under vmap."""
    return torch.nonzero(x).transpose(0, 1)
