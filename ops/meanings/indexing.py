"""Gathering and scattering by computed indices. Negative indices count from the end."""

from __future__ import annotations

import torch

from ...errors import FewbitsError
from ..registry import meaning
from .common import Call, ints

Tensor = torch.Tensor


def _wrap(indices: Tensor, length: int) -> Tensor:
    indices = indices.to(torch.int64)
    return torch.where(indices < 0, indices + length, indices)


@meaning("relax.take")
def take(call: Call, x: Tensor, indices: Tensor | int) -> Tensor:
    """Slices of `x` along an axis, in the shape of the indices. `mode` rules bad indices."""
    if not isinstance(indices, torch.Tensor):
        indices = torch.tensor(int(indices), device=x.device)
    axis = call.attrs.axis
    if axis is None:
        x, axis = x.reshape(-1), 0
    axis = int(axis) % x.dim()
    length = x.shape[axis]
    mode = str(call.attrs.mode)
    index = indices.to(torch.int64)
    if mode == "wrap":
        index = index.remainder(length)
    elif mode == "clip":
        index = index.clamp(0, length - 1)
    else:
        index = _wrap(index, length)
    shape = (*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :])
    return torch.index_select(x, axis, index.reshape(-1)).reshape(shape)


@meaning("relax.gather_elements")
def gather_elements(call: Call, x: Tensor, indices: Tensor) -> Tensor:
    """One element per index, the other coordinates being its own."""
    axis = int(call.attrs.axis) % x.dim()
    return torch.gather(x, axis, _wrap(indices, x.shape[axis]))


def _linear(indices: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Row-major position of each coordinate tuple (the last axis of `indices`)."""
    position = torch.zeros_like(indices[..., 0], dtype=torch.int64)
    for axis, length in enumerate(shape):
        position = position * length + _wrap(indices[..., axis], length)
    return position


@meaning("relax.gather_nd")
def gather_nd(call: Call, x: Tensor, indices: Tensor) -> Tensor:
    """Slices of `x` at coordinate tuples, after `batch_dims` common axes."""
    batch = int(call.attrs.batch_dims)
    shape = tuple(x.shape)
    depth = indices.shape[-1]
    common, inner = shape[:batch], shape[batch + depth :]
    rows = 1
    for length in common:
        rows *= length
    places = 1
    for length in shape[batch : batch + depth]:
        places *= length
    position = _linear(indices, shape[batch : batch + depth]).reshape(rows, -1)
    flat = x.reshape(rows, places, -1)
    position = position[:, :, None].expand(-1, -1, flat.shape[-1])
    picked = torch.gather(flat, 1, position)
    return picked.reshape(*common, *indices.shape[batch:-1], *inner)


_REDUCTIONS = {"add": "sum", "mul": "prod", "min": "amin", "max": "amax", "mean": "mean"}


def _scatter(x: Tensor, axis: int, index: Tensor, source: Tensor, reduction: str) -> Tensor:
    if reduction in ("update", "none"):
        return torch.scatter(x, axis, index, source)
    if reduction not in _REDUCTIONS:
        raise FewbitsError("unsupported-attribute", f"scatter reduction {reduction} is unknown")
    return torch.scatter_reduce(x, axis, index, source, _REDUCTIONS[reduction], include_self=True)


@meaning("relax.scatter_elements")
def scatter_elements(call: Call, x: Tensor, indices: Tensor, updates: Tensor) -> Tensor:
    """`x` with one element replaced (or combined) per index."""
    axis = int(call.attrs.axis) % x.dim()
    index = _wrap(indices, x.shape[axis])
    return _scatter(x, axis, index, updates, str(call.attrs.reduction))


@meaning("relax.scatter_nd")
def scatter_nd(call: Call, x: Tensor, indices: Tensor, updates: Tensor) -> Tensor:
    """`x` with slices at coordinate tuples replaced (or combined)."""
    depth = indices.shape[-1]
    outer = tuple(x.shape[:depth])
    places = 1
    for length in outer:
        places *= length
    flat = x.reshape(places, -1)
    position = _linear(indices, outer).reshape(-1, 1).expand(-1, flat.shape[1])
    source = updates.reshape(-1, flat.shape[1])
    return _scatter(flat, 0, position, source, str(call.attrs.reduction)).reshape(x.shape)


@meaning("relax.index_tensor")
def index_tensor(_call: Call, x: Tensor, indices: tuple[Tensor, ...]) -> Tensor:
    """NumPy's advanced indexing of the first axes."""
    return x[tuple(_wrap(index, x.shape[axis]) for axis, index in enumerate(indices))]


@meaning("relax.index_put")
def index_put(
    call: Call, x: Tensor, indices: tuple[Tensor, ...] | Tensor, values: Tensor
) -> Tensor:
    """Advanced indexing as the target of an assignment (or of an addition)."""
    wanted = indices if isinstance(indices, tuple) else (indices,)
    places = tuple(_wrap(index, x.shape[axis]) for axis, index in enumerate(wanted))
    return torch.index_put(x, places, values, bool(call.attrs.accumulate))


@meaning("relax.layout_transform")
def layout_transform(call: Call, x: Tensor) -> Tensor:
    """Elements moved by an index map; places that nothing moves to hold the pad value."""
    mapping = call.attrs.index_map
    shape = ints(mapping.map_shape(list(x.shape)))
    sources = torch.full(shape, -1, dtype=torch.int64)
    for position, coordinate in enumerate(
        torch.cartesian_prod(*map(torch.arange, x.shape)).tolist()
        if x.dim() > 1
        else [[i] for i in range(x.shape[0])]
    ):
        sources[ints(mapping.map_indices(coordinate))] = position
    value = call.attrs.pad_value
    filler = 0 if value is None else value.value
    flat = torch.cat([torch.full_like(x.reshape(-1)[:1], filler), x.reshape(-1)])
    return torch.index_select(flat, 0, (sources + 1).reshape(-1).to(x.device)).reshape(shape)
