"""Operators that only move data."""

from __future__ import annotations

import math

from ...ops.symbolic import equal
from .graph import Node, Unsupported, integers, onnx_type
from .rules import rule


@rule("relax.reshape", "relax.flatten")
def _reshape(node: Node) -> None:
    node.done("Reshape", node[0], _new_shape(node))


def _new_shape(node: Node) -> str:
    """Leading sizes that stay are 0 and one that is open is -1, as exporters write them."""
    given, wanted = node.extents(), list(node.result_extents)
    open_axes = [i for i, extent in enumerate(wanted) if not isinstance(extent, int)]
    if not open_axes or 0 in wanted:
        return node.sizes(wanted, "shape")
    for axis, (before, after) in enumerate(zip(given, wanted, strict=False)):
        if not equal(before, after):
            break
        if axis in open_axes:
            wanted[axis] = 0
            open_axes.remove(axis)
    if len(open_axes) == 1:
        wanted[open_axes[0]] = -1
    return node.sizes(wanted, "shape")


@rule("relax.permute_dims")
def _permute_dims(node: Node) -> None:
    axes = node.attrs.axes
    rank = node.rank()
    order = (
        list(reversed(range(rank))) if axes is None else [axis % rank for axis in integers(axes)]
    )
    node.done("Transpose", node[0], perm=order)


@rule("relax.concat")
def _concat(node: Node) -> None:
    node.done("Concat", *node.fields(), axis=int(node.attrs.axis or 0))


@rule("relax.stack")
def _stack(node: Node) -> None:
    rank = len(node.result_extents)
    axis = int(node.attrs.axis or 0) % rank
    axes = node.int64([axis], "axes")
    parts = [node.step("Unsqueeze", field, axes) for field in node.fields()]
    node.done("Concat", *parts, axis=axis)


@rule("relax.split")
def _split(node: Node) -> None:
    axis = node.axis()
    sizes = [field.shape.values[axis] for field in node.call.ty.fields]
    node.done("Split", node[0], node.sizes(sizes, "split"), axis=axis)


@rule("relax.strided_slice")
def _strided_slice(node: Node) -> None:
    axes = node.integers(1)
    begin, end = (node.elements(index) for index in (2, 3))
    strides = node.integers(4) if len(node.call.args) > 4 else [1] * len(axes)
    inputs = [
        node.sizes(values, label)
        for values, label in ((begin, "starts"), (end, "ends"), (axes, "axes"), (strides, "steps"))
    ]
    node.done("Slice", node[0], *inputs)


@rule("relax.flip")
def _flip(node: Node) -> None:
    starts, ends = node.int64([-1], "starts"), node.int64([-(2**62)], "ends")
    node.done("Slice", node[0], starts, ends, node.int64([node.axis()], "axes"), starts)


def _indices(node: Node, index: int) -> str:
    """An index tensor in a dtype that ONNX takes."""
    if node.dtype(index) in ("int32", "int64"):
        return node[index]
    return node.step("Cast", node[index], to=onnx_type("int64"))


@rule("relax.take")
def _take(node: Node) -> None:
    data, axis = node[0], node.attrs.axis
    if axis is None:
        data, axis = node.step("Reshape", data, node.int64([-1], "flat")), 0
    node.done("Gather", data, _indices(node, 1), axis=int(axis))


@rule("relax.gather_elements")
def _gather_elements(node: Node) -> None:
    node.done("GatherElements", node[0], _indices(node, 1), axis=node.axis())


@rule("relax.gather_nd")
def _gather_nd(node: Node) -> None:
    indices = node[1]
    if node.dtype(1) != "int64":
        indices = node.step("Cast", indices, to=onnx_type("int64"))
    node.done("GatherND", node[0], indices, batch_dims=int(node.attrs.batch_dims))


_SCATTER = {"update": "none", "add": "add", "mul": "mul", "min": "min", "max": "max"}


@rule("relax.scatter_elements", "relax.scatter_nd")
def _scatter(node: Node) -> None:
    reduction = _SCATTER.get(node.attrs.reduction)
    if reduction is None:
        raise Unsupported(f"scattering with reduction {node.attrs.reduction}")
    if reduction != "none":
        node.require(18, "scattering with a reduction")
    attributes = {} if reduction == "none" else {"reduction": reduction}
    if node.operator == "relax.scatter_elements":
        indices = _indices(node, 1)
        node.done("ScatterElements", node[0], indices, node[2], axis=node.axis(), **attributes)
        return
    indices = node[1]
    if node.dtype(1) != "int64":
        indices = node.step("Cast", indices, to=onnx_type("int64"))
    node.done("ScatterND", node[0], indices, node[2], **attributes)


@rule("relax.one_hot")
def _one_hot(node: Node) -> None:
    depth = node.constant(int(node.attrs.depth), "depth", "int64")
    values = node.constant([node.number(2), node.number(1)], "values", node.result_dtype)
    node.done("OneHot", node[0], depth, values, axis=int(node.attrs.axis))


_PAD_MODES = {"constant": "constant", "reflect": "reflect", "replicate": "edge", "circular": "wrap"}


@rule("relax.nn.pad")
def _pad(node: Node) -> None:
    attrs = node.attrs
    widths = integers(attrs.pad_width)
    mode = _PAD_MODES[attrs.pad_mode]
    if mode == "wrap":
        node.require(19, "circular padding")
    pads = node.int64(widths[0::2] + widths[1::2], "pads")
    value = [node.constant(attrs.pad_value, "value")] if mode == "constant" else []
    node.done("Pad", node[0], pads, *value, mode=mode)


@rule("relax.squeeze")
def _squeeze(node: Node) -> None:
    axes = node.attrs.axis
    rank = node.rank()
    dropped = (
        [axis for axis, extent in enumerate(node.extents()) if equal(extent, 1)]
        if axes is None
        else [axis % rank for axis in integers(axes)]
    )
    node.done("Squeeze", node[0], node.int64(dropped, "axes"))


@rule("relax.expand_dims")
def _expand_dims(node: Node) -> None:
    axes = [axis % len(node.result_extents) for axis in integers(node.attrs.axis)]
    node.done("Unsqueeze", node[0], node.int64(axes, "axes"))


@rule("relax.broadcast_to")
def _broadcast_to(node: Node) -> None:
    node.done("Expand", node[0], node.sizes(node.result_extents, "shape"))


@rule("relax.tile")
def _tile(node: Node) -> None:
    repeats, rank, data = integers(node.attrs.repeats), node.rank(), node[0]
    if len(repeats) > rank:
        axes = node.int64(range(len(repeats) - rank), "axes")
        data = node.step("Unsqueeze", data, axes)
    repeats = [1] * (rank - len(repeats)) + repeats
    node.done("Tile", data, node.int64(repeats, "repeats"))


@rule("relax.repeat")
def _repeat(node: Node) -> None:
    data, shape, axis = node[0], list(node.extents()), node.attrs.axis
    if axis is None:
        data, axis = node.step("Reshape", data, node.int64([-1], "flat")), 0
        shape = [math.prod(shape)]
    after = int(axis) % len(shape) + 1
    data = node.step("Unsqueeze", data, node.int64([after], "axes"))
    widened = [*shape[:after], int(node.attrs.repeats), *shape[after:]]
    data = node.step("Expand", data, node.sizes(widened, "widened"))
    node.done("Reshape", data, node.sizes(node.result_extents, "shape"))
