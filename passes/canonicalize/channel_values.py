"""Channels whose value is known without running the model.

A filter of zeros makes a channel that is its bias everywhere; what follows element by element keeps
it constant. NaN stands for "not constant".
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from tvm import relax

from ...ops.meanings.common import from_numpy, ints, torch_dtype
from ...ops.registry import meaning_of
from ..rewrite import operator_of
from . import families
from .channels import Channels, Layout, Reader, is_padded
from .graph import dtype_of, is_number, shape_of
from .weights import weight_of

#: For every variable with a layout: the constant at each position of its channel axis, or NaN.
Values = dict[relax.Expr, np.ndarray]


def channel_values(channels: Channels) -> Values:
    """The constants of all variables that carry channels, float64."""
    values: Values = {}
    for var, call in channels.graph.bindings:
        layout = channels.layouts.get(var)
        if layout is not None and isinstance(call, relax.Call):
            with np.errstate(all="ignore"):
                values[var] = _value(channels, values, var, call, layout)
    return values


def _value(
    channels: Channels, values: Mapping[Any, np.ndarray], var: Any, call: Any, layout: Layout
) -> np.ndarray:
    name = operator_of(call) or ""
    unknown = np.full(shape_of(var)[layout.axis], np.nan)
    if var in channels.readers:
        reader = channels.readers[var]
        return mixed(reader, values[call.args[0]] if reader.source is not None else None)
    if var in channels.depthwise:
        weight = channels.depthwise[var].significant
        source = np.repeat(values[call.args[0]], weight.shape[0] // int(call.attrs.groups))
        return _through(weight.reshape(weight.shape[0], -1), source, is_padded(call))
    if name == "relax.concat":
        sizes = [shape_of(field)[layout.axis] for field in call.args[0].fields]
        fields = zip(call.args[0].fields, sizes, strict=True)
        return np.concatenate([values.get(f, np.full(size, np.nan)) for f, size in fields])
    if name in families.JOINT or name in families.UNARY | families.SCALED | {"relax.nn.prelu"}:
        return _computed(channels, values, var, call, layout)
    source = values[call.args[0]]
    if name in families.REDUCTIONS:
        return _reduced(call, name, source)
    if name in families.POOLS:
        counts_padding = "avg_pool" in name and "adaptive" not in name
        counts_padding = counts_padding and call.attrs.count_include_pad and is_padded(call)
        return np.where(source == 0, source, np.nan) if counts_padding else source
    if name == "relax.reshape":
        return _reshaped(source, unknown)
    if name == "relax.nn.pad":
        if str(call.attrs.pad_mode) != "constant":
            return source
        return np.where(source == float(call.attrs.pad_value), source, np.nan)
    if name in ("relax.permute_dims", "relax.strided_slice"):
        return source
    if name == "relax.image.resize2d" and str(call.attrs.method) == "nearest_neighbor":
        return source
    return np.where(source == 0, 0.0, np.nan) if name == "relax.image.resize2d" else unknown


def mixed(reader: Reader, source: np.ndarray | None) -> np.ndarray:
    """What a mixing layer makes of its input's constants (None: none known)."""
    reads, sums = reader.reads(), reader.spatial_sums()
    known = np.full(reads.shape[1], np.nan) if source is None else source
    if reader.padded:
        known = np.where(known == 0, known, np.nan)
    return np.where(reads, sums * known, 0.0).sum(1)


def _through(weight: np.ndarray, source: np.ndarray, padded: bool) -> np.ndarray:
    """A depthwise layer, weight [channels, window]."""
    if padded:
        source = np.where(source == 0, source, np.nan)
    return np.where((weight != 0).any(1), weight.sum(1) * source, 0.0)


def _reduced(call: Any, name: str, source: np.ndarray) -> np.ndarray:
    if name in ("relax.mean", "relax.max", "relax.min"):
        return source
    if name == "relax.sum":
        shape = shape_of(call.args[0])
        axes = range(len(shape)) if call.attrs.axis is None else ints(call.attrs.axis)
        count = math.prod(shape[axis] for axis in axes)
        return source * count if is_number([count]) else np.where(source == 0, 0.0, np.nan)
    return np.full_like(source, np.nan)


def _reshaped(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    if target.size >= source.size:
        return np.repeat(source, target.size // source.size)
    together = source.reshape(target.size, -1)
    same = (together == together[:, :1]).all(1)
    return np.where(same, together[:, 0], np.nan)


def _computed(
    channels: Channels, values: Mapping[Any, np.ndarray], var: Any, call: Any, layout: Layout
) -> np.ndarray:
    """An operator that works element by element, run on one element a channel."""
    rank, size = len(shape_of(var)), shape_of(var)[layout.axis]
    arguments: list[Any] = []
    unknown = np.zeros(size, bool)
    absorbing = np.zeros(size, bool)
    for argument in call.args:
        if argument in values:
            known = values[argument]
            unknown |= np.isnan(known)
            probe = torch.from_numpy(np.nan_to_num(known)).to(torch_dtype(dtype_of(argument)))
            own_axis = layout.axis - rank + len(shape_of(argument))
            shape = [1] * len(shape_of(argument))
            shape[own_axis] = size
            arguments.append(probe.reshape(shape))
            absorbing |= known == 0
            continue
        weight = weight_of(channels.graph, argument) if hasattr(argument, "ty") else None
        if weight is not None:
            arguments.append(from_numpy(weight.value))
            absorbing |= _spread(weight.value == 0, rank, layout.axis, size)
        elif isinstance(argument, relax.Var):
            unknown[:] = True
            arguments.append(torch.ones([1] * rank, dtype=torch_dtype(dtype_of(argument))))
        else:
            arguments.append(argument.value)
    result = meaning_of(operator_of(call) or "")(call, *arguments).to(torch.float64).numpy()
    rows = np.moveaxis(
        result.reshape([1] * (rank - result.ndim) + list(result.shape)), layout.axis, 0
    )
    rows = np.broadcast_to(rows.reshape(rows.shape[0], -1), (size, rows.size // rows.shape[0]))
    constant = np.where((rows == rows[:, :1]).all(1) & ~unknown, rows[:, 0], np.nan)
    if operator_of(call) == "relax.multiply":
        constant = np.where(absorbing, 0.0, constant)
    return constant


def _spread(zero: np.ndarray, rank: int, axis: int, size: int) -> np.ndarray:
    """Per channel, whether a mask that broadcasts against a value is true throughout."""
    whole = zero.reshape([1] * (rank - zero.ndim) + list(zero.shape))
    others = tuple(index for index in range(rank) if index != axis)
    return np.broadcast_to(whole.all(axis=others), (size,))
