"""Picking elements by index, and the values that shapes give."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from tvm import relax

from ..limits import check_extents
from ..node import Known, Node, Result, constant
from ..tensors import read
from .movement import slice_axes

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
    if not isinstance(node.value(1), Known):
        return op.take(node[0], node[1], axis, mode="wrap")
    indices = _checked(node, [node.shape(0)[axis]])
    steps = set(np.diff(indices.reshape(-1)).tolist())
    if indices.size and indices.ndim < 2 and len(steps) < 2 and min(steps, default=1) > 0:
        return _as_slice(node, axis, indices, steps.pop() if steps else 1)
    return op.take(node[0], constant(indices), axis, mode="clip")


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
    return np.array(node.shape(0)[slice(start, end)], dtype="int64")


def _size(node: Node) -> Result:
    return np.array(np.prod(node.shape(0), dtype="int64"))


def _constant_of_shape(node: Node) -> Result:
    shape = node.known_ints(0, "the shape")
    value = np.zeros(1, "float32")
    for attribute in node.proto.attribute:
        if attribute.name == "value":
            value = read(attribute.t)
    if 0 not in shape:
        check_extents(shape, str(value.dtype), node.where)
    return np.full(shape, value.reshape(-1)[0], value.dtype)


def _range(node: Node) -> Result:
    start, limit, step = (
        node.known(i, what).reshape(()) for i, what in enumerate(("start", "limit", "delta"))
    )
    if step == 0:
        raise node.error("invalid-node", "Range with a delta of 0")
    count = max(0, int(np.ceil((float(limit) - float(start)) / float(step))))
    if count:
        check_extents([count], str(start.dtype), node.where)
    return (start + np.arange(count, dtype=start.dtype) * step).astype(start.dtype)


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
