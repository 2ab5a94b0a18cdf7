"""Reductions, scans and searches along axes."""

from __future__ import annotations

from .graph import Node, Unsupported, integers, onnx_type
from .rules import rule

_REDUCTIONS = {
    "relax.sum": "ReduceSum",
    "relax.mean": "ReduceMean",
    "relax.max": "ReduceMax",
    "relax.min": "ReduceMin",
    "relax.prod": "ReduceProd",
}


def _axes_argument(node: Node, operator: str, axes: list[int]) -> tuple[list[str], dict]:
    """Axes moved from attribute to input: ``ReduceSum`` in opset 13, the others in 18."""
    if operator == "ReduceSum" or node.graph.opset >= 18:
        return [node.int64(axes, "axes")], {}
    return [], {"axes": axes}


def reduce_step(node: Node, operator: str, value: str, axes: list[int]) -> str:
    """A helper reduction of `value` that keeps the reduced axes."""
    inputs, attributes = _axes_argument(node, operator, axes)
    return node.step(operator, value, *inputs, keepdims=1, **attributes)


def _axes(node: Node) -> list[int]:
    rank = node.rank()
    if node.attrs.axis is None:
        return list(range(rank))
    return sorted(axis % rank for axis in integers(node.attrs.axis))


@rule(*_REDUCTIONS)
def _reduce(node: Node) -> None:
    operator = _REDUCTIONS[node.operator]
    if operator == "ReduceMean" and node.attrs.keepdims and _axes(node) == [*range(2, node.rank())]:
        # The form in which run times look for an integer kernel.
        node.done("GlobalAveragePool", node[0])
        return
    inputs, attributes = _axes_argument(node, operator, _axes(node))
    node.done(operator, node[0], *inputs, keepdims=int(node.attrs.keepdims), **attributes)


@rule("relax.variance", "relax.std")
def _variance(node: Node) -> None:
    axes = _axes(node)
    centered = node.step("Sub", node[0], reduce_step(node, "ReduceMean", node[0], axes))
    square = node.step("Mul", centered, centered)
    inputs, attributes = _axes_argument(node, "ReduceMean", axes)
    attributes["keepdims"] = int(node.attrs.keepdims)
    if node.operator == "relax.variance":
        node.done("ReduceMean", square, *inputs, **attributes)
    else:
        node.done("Sqrt", node.step("ReduceMean", square, *inputs, **attributes))


@rule("relax.argmax", "relax.argmin")
def _arg(node: Node) -> None:
    operator = "ArgMax" if node.operator == "relax.argmax" else "ArgMin"
    keep = int(node.attrs.keepdims)
    if node.attrs.axis is not None:
        node.done(operator, node[0], axis=node.axis(), keepdims=keep)
        return
    flat = node.step("Reshape", node[0], node.int64([-1], "flat"))
    index = node.step(operator, flat, axis=0, keepdims=0)
    node.done("Reshape", index, node.sizes(node.result_extents, "shape"))


@rule("relax.cumsum")
def _cumsum(node: Node) -> None:
    value, axis = node[0], node.attrs.axis
    if axis is None:
        value, axis = node.step("Reshape", value, node.int64([-1], "flat")), 0
    if node.result_dtype != node.dtype():
        value = node.step("Cast", value, to=onnx_type(node.result_dtype))
    position = node.constant(int(axis), "axis", "int64")
    node.done("CumSum", value, position, exclusive=int(node.attrs.exclusive))


@rule("relax.topk")
def _topk(node: Node) -> None:
    attrs = node.attrs
    if attrs.ret_type != "both":
        raise Unsupported(f"topk that returns {attrs.ret_type} only")
    count = node.int64([int(attrs.k)], "k")
    values, indices = node.outputs
    raw = node.graph.value_name(f"{node.name}/TopK")
    attributes = {"axis": node.axis(), "largest": int(attrs.largest)}
    node.graph.add("TopK", [node[0], count], [values, raw], node.name, attributes)
    to = onnx_type(str(attrs.dtype))
    node.graph.add("Cast", [raw], [indices], f"{node.name}/Cast", {"to": to})
