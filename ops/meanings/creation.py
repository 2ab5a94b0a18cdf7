"""Tensors from nothing but shapes and scalars, and shapes as values."""

from __future__ import annotations

import torch

from ..registry import meaning
from .common import Call, ints, result_dtype, torch_dtype

Tensor = torch.Tensor


@meaning("relax.full")
def full(call: Call, shape: tuple[int, ...], value: Tensor) -> Tensor:
    """One scalar everywhere."""
    return value.to(result_dtype(call)).reshape(()).expand(shape)


@meaning("relax.full_like")
def full_like(call: Call, x: Tensor, value: Tensor) -> Tensor:
    """One scalar everywhere, in the shape of `x`."""
    return value.to(result_dtype(call)).reshape(()).expand(x.shape)


@meaning("relax.zeros")
def zeros(call: Call, shape: tuple[int, ...]) -> Tensor:
    """Zeros of a shape."""
    return torch.zeros(shape, dtype=result_dtype(call))


@meaning("relax.ones")
def ones(call: Call, shape: tuple[int, ...]) -> Tensor:
    """Ones of a shape."""
    return torch.ones(shape, dtype=result_dtype(call))


@meaning("relax.zeros_like")
def zeros_like(call: Call, x: Tensor) -> Tensor:
    """Zeros in the shape of `x`."""
    return torch.zeros_like(x, dtype=result_dtype(call))


@meaning("relax.ones_like")
def ones_like(call: Call, x: Tensor) -> Tensor:
    """Ones in the shape of `x`."""
    return torch.ones_like(x, dtype=result_dtype(call))


@meaning("relax.arange")
def arange(call: Call, start: float, end: float, step: float) -> Tensor:
    """From `start` by `step`, before `end`."""
    return torch.arange(start, end, step, dtype=torch_dtype(call.attrs.dtype))


@meaning("relax.eye")
def eye(call: Call, rows: int, columns: int, k: int) -> Tensor:
    """Ones on the k-th diagonal."""
    return _diagonal(rows, columns, k, call)


@meaning("relax.eye_like")
def eye_like(call: Call, x: Tensor, k: int) -> Tensor:
    """Ones on the k-th diagonal, in the shape of `x`."""
    return _diagonal(x.shape[-2], x.shape[-1], k, call)


def _diagonal(rows: int, columns: int, k: int, call: Call) -> Tensor:
    distance = torch.arange(columns)[None, :] - torch.arange(rows)[:, None]
    return (distance == k).to(result_dtype(call))


@meaning("relax.tril")
def tril(_call: Call, x: Tensor, k: int) -> Tensor:
    """The lower triangle, up to the k-th diagonal."""
    return torch.tril(x, int(k))


@meaning("relax.triu")
def triu(_call: Call, x: Tensor, k: int) -> Tensor:
    """The upper triangle, from the k-th diagonal on."""
    return torch.triu(x, int(k))


@meaning("relax.hamming_window")
def hamming_window(call: Call, size: int, periodic: int, alpha: float, beta: float) -> Tensor:
    """``alpha - beta cos(2 pi n / N)``."""
    kind = torch_dtype(call.attrs.dtype)
    return torch.hamming_window(int(size), bool(periodic), float(alpha), float(beta), dtype=kind)


@meaning("relax.one_hot")
def one_hot(call: Call, indices: Tensor, on: float, off: float) -> Tensor:
    """`on` at each index along a new axis of length `depth`, `off` elsewhere."""
    depth, axis = int(call.attrs.depth), int(call.attrs.axis)
    axis = axis % (indices.dim() + 1)
    shape = [1] * (indices.dim() + 1)
    shape[axis] = depth
    places = torch.arange(depth, device=indices.device).reshape(shape)
    hit = indices.to(torch.int64).unsqueeze(axis) == places
    kind = result_dtype(call)
    on_value = torch.tensor(on, dtype=kind, device=indices.device)
    off_value = torch.tensor(off, dtype=kind, device=indices.device)
    return torch.where(hit, on_value, off_value)


@meaning("relax.shape_of")
def shape_of(_call: Call, x: Tensor) -> tuple[int, ...]:
    """The shape as a shape value."""
    return tuple(x.shape)


@meaning("relax.size")
def size(_call: Call, x: Tensor) -> Tensor:
    """The number of elements, int64."""
    return torch.tensor(x.numel(), dtype=torch.int64)


@meaning("relax.shape_to_tensor")
def shape_to_tensor(_call: Call, shape: tuple[int, ...]) -> Tensor:
    """A shape value as an int64 vector."""
    return torch.tensor(shape, dtype=torch.int64)


@meaning("relax.tensor_to_shape")
def tensor_to_shape(_call: Call, x: Tensor) -> tuple[int, ...]:
    """An int64 vector as a shape value."""
    return ints(x)
