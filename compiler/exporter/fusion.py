"""Biases put back where ONNX has them: inside ``Conv`` and ``Gemm``.

Relax keeps ``conv`` and ``add(bias)`` apart. A run time recognises an integer layer in a QDQ model
only when the bias is the convolution's third input, so the pair becomes one node again.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Container, Iterator, Mapping
from typing import Any

import numpy as np
from tvm import relax

from .graph import Node, Unsupported, constant_array, dtype_of, layer_name, static_shape
from .layers import export_convolution

_CONVOLUTIONS = {f"relax.nn.conv{axes}d{kind}" for axes in (1, 2, 3) for kind in ("", "_transpose")}


@dataclasses.dataclass(frozen=True)
class Bias:
    """A constant vector, or the dequantization of one.

    Attributes:
        array: values or codes, [channels].
        dequantize: the call that dequantizes it, with its variable; None for plain values.
    """

    array: np.ndarray
    dequantize: tuple[relax.Var, Any] | None


@dataclasses.dataclass(frozen=True)
class BiasedLayer:
    """``add(layer, bias)`` as one ONNX node.

    Attributes:
        anchor: variable of the convolution or product.
        call: its call.
        bias: what is added.
        transposed: for a product, the matrix whose transpose is the second factor, if any.
    """

    anchor: relax.Var
    call: Any
    bias: Bias
    transposed: relax.Expr | None

    def name(self, names: Container[str]) -> str:
        """The layer's name."""
        return layer_name(self.anchor.name, names)

    def dependencies(self) -> list[relax.Expr]:
        """Expressions that must have ONNX values before this node."""
        data, weight = self.call.args
        return [data, weight if self.transposed is None else self.transposed]

    def export(self, node: Node) -> None:
        """Add the node; `node` is the anchor's call with the sum's outputs."""
        bias = self._bias_value(node)
        if self.call.op.name != "relax.matmul":
            export_convolution(node, bias)
        elif self.transposed is None:
            node.done("Gemm", node[0], node[1], bias)
        else:
            weight = node.lookup(self.transposed, "weight")
            assert isinstance(weight, str)
            node.done("Gemm", node[0], weight, bias, transB=1)

    def _bias_value(self, node: Node) -> str:
        if self.bias.dequantize is None:
            return node.constant(self.bias.array, "bias", str(self.bias.array.dtype))
        var, call = self.bias.dequantize
        codes = node.constant(self.bias.array, "bias", str(self.bias.array.dtype))
        scale, zero_point = (argument.value.numpy() for argument in call.args[1:])
        if zero_point.any():
            raise Unsupported("a bias with a zero point")
        vector = scale.size > 1 or len(self.bias.array) == 1
        scale = scale.reshape(-1) if vector else scale.reshape(())
        inputs = (codes, node.constant(scale, "bias_scale", str(scale.dtype)))
        output = node.graph.value_name(var.name)
        attributes = {"axis": 0} if vector else {}
        node.graph.add("DequantizeLinear", inputs, [output], var.name, attributes)
        return output


def find_biased_layers(
    calls: Mapping[relax.Var, Any], uses: Counter[relax.Var]
) -> dict[relax.Var, BiasedLayer]:
    """The sums that can be one node with their layer, by the sum's variable.

    Args:
        calls: the function's calls by variable.
        uses: how often each variable is used, results of the function included.
    """
    found = {}
    for var, call in calls.items():
        if call.op.name != "relax.add":
            continue
        for layer, addend in (call.args, reversed(call.args)):
            inner = calls.get(layer)
            if inner is None or uses[layer] != 1:
                continue
            fused = _match(layer, inner, addend, call, calls)
            if fused is not None:
                found[var] = fused
                break
    return found


def _match(
    var: relax.Var,
    inner: Any,
    addend: Any,
    total: Any,
    calls: Mapping[relax.Var, Any],
) -> BiasedLayer | None:
    transposed = None
    if inner.op.name in _CONVOLUTIONS:
        axis = 1
    elif inner.op.name == "relax.matmul" and all(a.ty.ndim == 2 for a in inner.args):
        axis = -1
        transposed = _transposed(inner.args[1], calls)
    else:
        return None
    try:
        shape = static_shape(inner.ty)
        same = shape == static_shape(total.ty) and dtype_of(inner.ty) == dtype_of(total.ty)
        bias = _vector(addend, shape, axis, calls) if same else None
    except Unsupported:  # symbolic shapes: stay two nodes
        return None
    return None if bias is None else BiasedLayer(var, inner, bias, transposed)


def _transposed(weight: Any, calls: Mapping[relax.Var, Any]) -> relax.Expr | None:
    call = calls.get(weight) if isinstance(weight, relax.Var) else None
    if call is not None and call.op.name == "relax.permute_dims" and call.args[0].ty.ndim == 2:
        axes = call.attrs.axes
        if axes is None or [int(axis) % 2 for axis in axes] == [1, 0]:
            return call.args[0]
    return None


def _vector(
    addend: Any,
    shape: tuple[int, ...],
    axis: int,
    calls: Mapping[relax.Var, Any],
) -> Bias | None:
    """The addend as a vector along `axis` of a result of `shape`, if it is one."""
    extents = static_shape(addend.ty)
    if len(extents) > len(shape):
        return None
    wanted = [1] * len(shape)
    wanted[axis] = shape[axis]
    if list(extents) != wanted[len(shape) - len(extents) :]:
        return None
    if int(np.prod(extents)) != shape[axis]:
        return None
    for expression, call in _through_reshapes(addend, calls):
        array = constant_array(expression)
        if array is not None:
            return Bias(array.reshape(-1), None)
        if call is not None and call.op.name == "relax.dequantize":
            codes = [constant_array(argument) for argument in call.args]
            if codes[0] is not None and all(code is not None for code in codes):
                return Bias(codes[0].reshape(-1), (expression, call))
    return None


def _through_reshapes(
    expression: Any, calls: Mapping[relax.Var, Any]
) -> Iterator[tuple[Any, Any | None]]:
    while True:
        call = calls.get(expression) if isinstance(expression, relax.Var) else None
        yield expression, call
        if call is None or call.op.name not in ("relax.reshape", "relax.expand_dims"):
            return
        expression = call.args[0]
