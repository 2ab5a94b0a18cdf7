"""Picking elements by index, and the values that shapes give."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import onnx
from tvm import relax

from ....ops.symbolic import simplified, spell
from ..limits import check_extents
from ..node import Node, Result
from ..tensors import read
from ..values import Known, Sizes, constant, sizes_or_known
from .slicing import slice_axes

op: Any = relax.op


def _checked(node: Node, extents: list[int]) -> np.ndarray:
    """Known indices (input 1; its last axis, or all of it, indexes axes of `extents`), none
    negative. An error for one that is out of range."""
    limit = np.array(extents if len(extents) > 1 else extents[0])
    indices = node.known(1, "the indices")
    if ((indices < -limit) | (indices >= limit)).any():
        raise node.error("invalid-node", f"{node.operator}: an index is outside of {extents}")
    return np.where(indices < 0, indices + limit, indices).astype("int64")


def _indices(node: Node, extents: list[int]) -> relax.Expr:
    """The indices as an expression; of run-time ones, negative values count from the end."""
    if isinstance(node.value(1), Known):
        return constant(_checked(node, extents))
    indices = op.astype(node[1], "int64") if node.dtype(1) != "int64" else node[1]
    if np.dtype(node.dtype(1)).kind == "u":
        return indices
    limit = constant(np.array(extents if len(extents) > 1 else extents[0], "int64"))
    indices = node.emit(indices)
    below = op.less(indices, relax.const(0, "int64"))
    return op.where(below, op.add(indices, limit), indices)


def _gather(node: Node) -> Result:
    """Gather. Run-time indices wrap around, as negative ones must: no index reads elsewhere."""
    axis = node.axis("axis", 0)
    indices = node.constant(1)
    extent = node.extents(0)[axis]
    if indices is None:
        return op.take(node[0], node[1], axis, mode="wrap")
    if not isinstance(extent, int):
        return _gather_of_open(node, axis, indices, extent)
    indices = _checked(node, [node.shape(0)[axis]])
    steps = set(np.diff(indices.reshape(-1)).tolist())
    if indices.size and indices.ndim < 2 and len(steps) < 2 and min(steps, default=1) > 0:
        return _as_slice(node, axis, indices, steps.pop() if steps else 1)
    return op.take(node[0], constant(indices), axis, mode="clip")


def _gather_of_open(node: Node, axis: int, indices: np.ndarray, extent: Any) -> Result:
    """Known indices into an axis of symbolic size: its first or last element, or any others."""
    if indices.size == 1 and int(indices.reshape(())) in (0, -1):
        first = 0 if int(indices.reshape(())) == 0 else simplified(extent - 1)
        x = slice_axes(node[0], [axis], [first], [simplified(first + 1)], [1])
        shape = node.extents(0)
        return op.reshape(x, [*shape[:axis], *indices.shape, *shape[axis + 1 :]])
    return op.take(node[0], constant(indices), axis, mode="wrap")


def _as_slice(node: Node, axis: int, indices: np.ndarray, step: int) -> Result:
    """Evenly spaced constant indices are a slice, a single scalar one without the axis."""
    first, last = int(indices.min()), int(indices.max())
    x = node[0]
    if indices.size < node.shape(0)[axis]:
        x = slice_axes(x, [axis], [first], [last + 1], [step])
    return x if indices.ndim else op.squeeze(x, [axis])


def _gather_elements(node: Node) -> Result:
    axis = node.axis("axis", 0)
    return op.gather_elements(node[0], _indices(node, [node.shape(0)[axis]]), axis)


def _gather_nd(node: Node) -> Result:
    batch, count = node.int("batch_dims", 0), node.shape(1)[-1]
    extents = list(node.shape(0)[batch : batch + count])
    return op.gather_nd(node[0], _indices(node, extents), batch)


def _shape(node: Node) -> Result:
    rank = node.rank()
    start, end = node.int("start", 0), node.int("end", rank)
    picked = node.extents(0)[slice(start, end)]
    array = np.empty(len(picked), object)
    array[:] = picked
    return sizes_or_known(node.proto.output[0], array, "int64")


def _size(node: Node) -> Result:
    count = np.empty((), object)
    count[()] = math.prod(node.extents(0))
    return sizes_or_known(node.proto.output[0], count, "int64")


def _constant_of_shape(node: Node) -> Result:
    shape = node.sizes(0, "the shape")
    value = np.zeros(1, "float32")
    for attribute in node.proto.attribute:
        if attribute.name == "value":
            value = read(attribute.t)
    fixed = [extent for extent in shape if isinstance(extent, int)]
    if 0 not in fixed:
        check_extents(fixed, str(value.dtype), node.where)
    if len(fixed) < len(shape):
        return op.full(shape, constant(value.reshape(())), str(value.dtype))
    return np.full(fixed, value.reshape(-1)[0], value.dtype)


def _range(node: Node) -> Result:
    values = [node.value(i) for i in range(3)]
    if any(isinstance(value, Sizes) for value in values):
        return _open_range(node)
    start, limit, step = (
        node.known(i, what).reshape(()) for i, what in enumerate(("start", "limit", "delta"))
    )
    if step == 0:
        raise node.error("invalid-node", "Range with a delta of 0")
    count = max(0, int(np.ceil((float(limit) - float(start)) / float(step))))
    if count:
        check_extents([count], str(start.dtype), node.where)
    return (start + np.arange(count, dtype=start.dtype) * step).astype(start.dtype)


def _open_range(node: Node) -> Result:
    """A range with symbolic bounds; one whose length is a number still is a list of sizes."""
    start, limit, step = (
        node.sizes(i, what)[0] for i, what in enumerate(("start", "limit", "delta"))
    )
    if not isinstance(step, int) or step == 0:
        raise node.error("invalid-node", f"Range with a delta of {spell(step)}")
    count = simplified((limit - start + step - (1 if step > 0 else -1)) // step)
    if isinstance(count, int):
        array = np.empty(max(count, 0), object)
        array[:] = [start + step * i for i in range(max(count, 0))]
        return sizes_or_known(node.proto.output[0], array, node.dtype())
    if step < 0:
        raise node.refuse("a backward range of symbolic length")
    return op.arange(start, limit, step, node.dtype())


def _constant(node: Node) -> Result:
    for attribute in node.proto.attribute:
        value = onnx.helper.get_attribute_value(attribute)
        if attribute.name == "value":
            return read(attribute.t)
        if attribute.name in ("value_int", "value_ints"):
            return np.array(value, dtype="int64")
        if attribute.name in ("value_float", "value_floats"):
            return np.array(value, dtype="float32")
    raise node.refuse("a constant that is neither numbers nor a dense tensor")


def _eye_like(node: Node) -> Result:
    shape = node.shape(0)
    if len(shape) != 2:
        raise node.error("invalid-node", f"EyeLike of a tensor of rank {len(shape)}")
    code = node.int("dtype", 0)
    dtype = onnx.helper.tensor_dtype_to_np_dtype(code) if code else node.dtype()
    return np.eye(*shape, k=node.int("k", 0), dtype=dtype)


CONVERTERS = {
    "Gather": _gather,
    "GatherElements": _gather_elements,
    "GatherND": _gather_nd,
    "Shape": _shape,
    "Size": _size,
    "ConstantOfShape": _constant_of_shape,
    "Range": _range,
    "Constant": _constant,
    "EyeLike": _eye_like,
}
