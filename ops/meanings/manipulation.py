"""What only moves data: shapes, orders, slices, repetition."""

from __future__ import annotations

import itertools

import torch

from ..registry import meaning
from .common import Call, ints, optional_axes

Tensor = torch.Tensor


@meaning("relax.reshape")
def reshape(_call: Call, x: Tensor, shape: tuple[int, ...]) -> Tensor:
    """The same elements in another shape."""
    return x.reshape(shape)


@meaning("relax.flatten")
def flatten(_call: Call, x: Tensor) -> Tensor:
    """One axis."""
    return x.reshape(-1)


@meaning("relax.expand_dims")
def expand_dims(call: Call, x: Tensor) -> Tensor:
    """New axes of length 1 at these positions of the result."""
    axes = ints(call.attrs.axis)
    rank = x.dim() + len(axes)
    for axis in sorted(a % rank for a in axes):
        x = x.unsqueeze(axis)
    return x


@meaning("relax.squeeze")
def squeeze(call: Call, x: Tensor) -> Tensor:
    """Without these (or all) axes of length 1."""
    axes = optional_axes(call.attrs.axis)
    if axes is None:
        axes = tuple(axis for axis, length in enumerate(x.shape) if length == 1)
    for axis in sorted((a % x.dim() for a in axes), reverse=True):
        x = x.squeeze(axis)
    return x


@meaning("relax.permute_dims")
def permute_dims(call: Call, x: Tensor) -> Tensor:
    """Axes in another order; reversed when none is given."""
    axes = optional_axes(call.attrs.axes)
    return x.permute(tuple(reversed(range(x.dim()))) if axes is None else axes)


@meaning("relax.broadcast_to")
def broadcast_to(_call: Call, x: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Axes of length 1 repeated without copying."""
    return x.expand(shape)


@meaning("relax.concat")
def concat(call: Call, tensors: tuple[Tensor, ...]) -> Tensor:
    """Joined along an axis; flattened first when there is none."""
    if call.attrs.axis is None:
        return torch.cat([tensor.reshape(-1) for tensor in tensors])
    return torch.cat(list(tensors), int(call.attrs.axis))


@meaning("relax.stack")
def stack(call: Call, tensors: tuple[Tensor, ...]) -> Tensor:
    """Joined along a new axis."""
    return torch.stack(list(tensors), 0 if call.attrs.axis is None else int(call.attrs.axis))


@meaning("relax.split")
def split(call: Call, x: Tensor) -> Tensor | tuple[Tensor, ...]:
    """Equal parts by their number (the last may be shorter), or parts between indices.

    Relax types a split into one part as that part, not as a tuple of it.
    """
    if not hasattr(call.ty, "fields"):
        return x
    axis = int(call.attrs.axis)
    where = call.attrs.indices_or_sections
    length = x.shape[axis]
    if hasattr(where, "__len__"):
        bounds = [0, *(min(index, length) for index in ints(where)), length]
    else:
        parts = int(where)
        size = -(-length // parts)
        bounds = [min(part * size, length) for part in range(parts + 1)]
    pairs = itertools.pairwise(bounds)
    return tuple(x.narrow(axis, first, last - first) for first, last in pairs)


def slice_axis(x: Tensor, axis: int, begin: int, end: int, stride: int) -> Tensor:
    """NumPy's ``x[begin:end:stride]`` along an axis, out-of-range bounds clamped."""
    first, last, step = slice(begin, end, stride).indices(x.shape[axis])
    chosen = range(first, last, step)
    if step > 0:
        index = [slice(None)] * x.dim()
        index[axis] = slice(first, max(first, last), step)
        return x[tuple(index)]
    return torch.index_select(
        x, axis, torch.tensor(list(chosen), dtype=torch.int64, device=x.device)
    )


def _numpy_end(end: int, stride: int, length: int) -> int:
    """Walking backwards, an end below -length means: up to and including the first element."""
    return -(2**62) if stride < 0 and end < -length else end


@meaning("relax.strided_slice")
def strided_slice(
    _call: Call,
    x: Tensor,
    axes: tuple[int, ...],
    begin: tuple[int, ...],
    end: tuple[int, ...],
    strides: tuple[int, ...] | None = None,
) -> Tensor:
    """Slices of some axes with NumPy's rules."""
    steps = (1,) * len(axes) if strides is None else ints(strides)
    for axis, first, last, step in zip(ints(axes), ints(begin), ints(end), steps, strict=True):
        x = slice_axis(x, axis, first, _numpy_end(last, step, x.shape[axis]), step)
    return x


@meaning("relax.dynamic_strided_slice")
def dynamic_strided_slice(
    _call: Call, x: Tensor, begin: Tensor, end: Tensor, strides: Tensor
) -> Tensor:
    """Slices of all axes; the bounds must not depend on a vmapped input."""
    bounds = zip(ints(begin), ints(end), ints(strides), strict=True)
    for axis, (first, last, step) in enumerate(bounds):
        x = slice_axis(x, axis, first, _numpy_end(last, step, x.shape[axis]), step)
    return x


@meaning("relax.slice_scatter")
def slice_scatter(call: Call, x: Tensor, source: Tensor, start: int, end: int, step: int) -> Tensor:
    """`x` with a slice along an axis replaced."""
    return torch.slice_scatter(x, source, int(call.attrs.axis), int(start), int(end), int(step))


@meaning("relax.tile")
def tile(call: Call, x: Tensor) -> Tensor:
    """The whole tensor repeated along its axes."""
    return torch.tile(x, ints(call.attrs.repeats))


@meaning("relax.repeat")
def repeat(call: Call, x: Tensor) -> Tensor:
    """Every element repeated along an axis."""
    if call.attrs.axis is None:
        return x.reshape(-1).repeat_interleave(int(call.attrs.repeats))
    return x.repeat_interleave(int(call.attrs.repeats), int(call.attrs.axis))


@meaning("relax.flip")
def flip(call: Call, x: Tensor) -> Tensor:
    """Backwards along an axis."""
    return torch.flip(x, [int(call.attrs.axis)])


@meaning("relax.reverse_sequence")
def reverse_sequence(call: Call, x: Tensor, lengths: Tensor) -> Tensor:
    """Backwards along `seq_axis`, the first ``lengths[b]`` elements of each batch element b."""
    time, batch = int(call.attrs.seq_axis) % x.dim(), int(call.attrs.batch_axis) % x.dim()
    positions = torch.arange(x.shape[time], device=x.device)
    counts = lengths.to(torch.int64)[:, None]
    source = torch.where(positions < counts, counts - 1 - positions, positions)
    if batch > time:
        source = source.transpose(0, 1)
    shape = [1] * x.dim()
    shape[batch], shape[time] = x.shape[batch], x.shape[time]
    return torch.gather(x, time, source.reshape(shape).expand(x.shape))


@meaning("relax.meshgrid")
def meshgrid(call: Call, vectors: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Coordinate grids."""
    return torch.meshgrid(*vectors, indexing=str(call.attrs.indexing or "ij"))


@meaning("relax.to_vdevice", "relax.hint_on_device")
def identity(_call: Call, x: Tensor) -> Tensor:
    """Placement has no meaning here."""
    return x
