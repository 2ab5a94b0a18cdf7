"""Layers that have weights: finding them, and putting compressed weights and activations in.

Every compressing pass works on the same view of a layer: a weight with the output channel first
and what is summed over last (``[O, I]``, ``[O, I/groups, kh, kw]``, ``[V, D]``), and the value that
it multiplies. How a module spells the product is this file's business alone.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal

import numpy as np
from tvm import ir, relax

from ..errors import FewbitsError, nearest
from ..formats.compressed import CompressedTensor
from ..formats.plain import PlainTensor, StoredTensor
from ..ops.compressed.weights import decode_call, is_decode, tensor_of
from .quantize.plan import matches
from .rewrite import Rewriter, as_array, constant, operator_of

Kind = Literal["linear", "convolution", "embedding"]
_CONVOLUTIONS = ("relax.nn.conv1d", "relax.nn.conv2d")
#: Relax's operators; their annotations are narrower than what they accept.
_op: Any = relax.op


@dataclasses.dataclass(frozen=True, eq=False)
class Layer:
    """A binding that multiplies by, or looks up in, a constant weight.

    Attributes:
        name: the layer as the user knows it.
        kind: ``linear`` (a matrix product), ``convolution``, ``embedding``.
        operator: the Relax operator's name.
        var: the binding's variable.
        call: the binding's value.
        input: what the weight multiplies; the ids of an embedding.
        source: the constant, or the call of ``fewbits.decode``, that holds the weight.
        groups: of a convolution, else 1.
    """

    name: str
    kind: Kind
    operator: str
    var: relax.Var
    call: relax.Call
    input: relax.Expr
    source: relax.Expr
    groups: int = 1

    @functools.cached_property
    def tensor(self) -> StoredTensor | None:
        """The compressed weight, where it is compressed already."""
        return tensor_of(self.source) if isinstance(self.source, relax.Call) else None

    @functools.cached_property
    def weight(self) -> np.ndarray:
        """float32 values, output channel first, summed-over axes last."""
        if self.tensor is not None:
            return self.tensor.decode().reshape(self.shape)
        array = as_array(self.source)
        return np.ascontiguousarray(array.T) if self.kind == "linear" else array

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of `weight`, without decoding it."""
        # A convolution's weight may be stored as a matrix that is reshaped.
        whole = self.call.args[1] if self.kind == "convolution" else self.source
        shape = tuple(int(size) for size in whole.ty.shape.values)
        is_matrix = self.kind == "linear" and isinstance(self.source, ir.GenericConst)
        return shape[::-1] if is_matrix else shape

    @property
    def matrix(self) -> np.ndarray:
        """The weight as ``[O, everything that is summed over]``, a view."""
        return self.weight.reshape(self.weight.shape[0], -1)


def find_layers(module: ir.IRModule) -> list[Layer]:
    """Layers with float or compressed weights, in program order.

    Weights of QDQ models (``relax.dequantize`` of integers) are not among them: they are
    compressed already, by somebody else.
    """
    rewriter = Rewriter(module)
    found = (_layer(rewriter, var, value) for var, value in rewriter.bindings)
    return [layer for layer in found if layer is not None]


def _layer(rewriter: Rewriter, var: relax.Var, value: relax.Expr) -> Layer | None:
    operator = operator_of(value)
    if not isinstance(value, relax.Call) or operator is None:
        return None
    kind: Kind
    groups = 1
    if operator == "relax.matmul":
        kind, x, source = "linear", value.args[0], _matrix(rewriter, value.args[1])
    elif operator in _CONVOLUTIONS:
        kind, x, source = "convolution", value.args[0], _weight(rewriter, value.args[1], True)
        groups = int(value.attrs.groups)
    elif operator == "relax.take" and value.attrs.axis is not None and int(value.attrs.axis) == 0:
        kind, x, source = "embedding", value.args[1], _weight(rewriter, value.args[0])
    else:
        return None
    if source is None or (kind != "convolution" and len(source.ty.shape.values) != 2):
        return None
    return Layer(str(var.name), kind, operator, var, value, x, source, groups)


def _weight(
    rewriter: Rewriter, expression: relax.Expr, reshaped: bool = False
) -> relax.Expr | None:
    """The float32 constant, or the (`reshaped`) ``fewbits.decode``, behind an argument."""
    if isinstance(expression, ir.GenericConst):
        return expression if str(expression.ty.dtype) == "float32" else None
    value: Any = rewriter.values.get(expression) if isinstance(expression, relax.Var) else None
    if reshaped and operator_of(value) == "relax.reshape":
        value = rewriter.values.get(value.args[0])
    return value if value is not None and is_decode(value) else None


def _matrix(rewriter: Rewriter, expression: relax.Expr) -> relax.Expr | None:
    """The same of the right side of a product: compressed ones are stored ``[O, I]``."""
    if isinstance(expression, ir.GenericConst):
        return _weight(rewriter, expression)
    value: Any = rewriter.values.get(expression) if isinstance(expression, relax.Var) else None
    if operator_of(value) == "relax.permute_dims":
        source = _weight(rewriter, value.args[0])
        return source if isinstance(source, relax.Call) else None
    return None


@dataclasses.dataclass(frozen=True)
class Replacement:
    """What becomes of a layer.

    Attributes:
        weight: the new weight in the layer's own layout (output channel first): compressed, or
            float32 as an array. A convolution's may be compressed as ``layer.matrix``.
        activation: from the layer's new input to what the product gets, e.g. a `fake_quantize`
            call; None to leave it.
    """

    weight: StoredTensor | np.ndarray
    activation: Callable[[relax.Expr], relax.Expr] | None = None


def replace_layers(
    module: ir.IRModule, replace: Callable[[Layer], Replacement | None]
) -> ir.IRModule:
    """The module with the layers' weights replaced where `replace` says so.

    Helper bindings are called after the layer, so reports show one layer.
    """
    rewriter = Rewriter(module)
    # Values that several layers read are quantized once for all that ask for the same.
    shared: dict[tuple[relax.Expr, str], relax.Expr] = {}
    for var, value in rewriter.bindings:
        layer = _layer(rewriter, var, value)
        chosen = None if layer is None else replace(layer)
        if layer is None or chosen is None:
            rewriter.keep(var, value)
            continue
        new = emit_layer(rewriter, layer, chosen, shared)
        rewriter.replace(var, new)
    return rewriter.finish()


def emit_layer(
    rewriter: Rewriter,
    layer: Layer,
    chosen: Replacement,
    shared: dict[tuple[relax.Expr, str], relax.Expr] | None = None,
) -> relax.Var:
    """Emit the layer with its replacement; its variable keeps the layer's name."""
    name = layer.name
    weight: relax.Expr
    if isinstance(chosen.weight, CompressedTensor | PlainTensor):
        weight = rewriter.emit(decode_call(chosen.weight), name)
        if chosen.weight.shape != layer.shape:
            weight = rewriter.emit(_op.reshape(weight, layer.shape), name)
        if layer.kind == "linear":
            weight = rewriter.emit(_op.permute_dims(weight), name)
    else:
        array = np.asarray(chosen.weight, np.float32)
        weight = constant(array.T if layer.kind == "linear" else array)
    x = rewriter.map(layer.input)
    if chosen.activation is not None:
        made = chosen.activation(x)
        key = (x, str(made))
        if shared is not None and key in shared:
            x = shared[key]
        else:
            x = rewriter.emit(made, name)
            if shared is not None:
                shared[key] = x
    arguments = [weight, x] if layer.kind == "embedding" else [x, weight]
    rest = [rewriter.map(argument) for argument in layer.call.args[2:]]
    call = relax.Call(layer.call.op, [*arguments, *rest], layer.call.attrs, layer.call.ty_args)
    return rewriter.emit(call, name)


def select_layers(
    layers: Iterable[Layer],
    targets: Sequence[str] = (),
    ignore: Sequence[str] = (),
    pass_name: str = "",
) -> list[Layer]:
    """The layers that `targets` names (all if empty) and `ignore` does not.

    An entry is a layer's name, a wildcard, ``re:`` and a regular expression, an operator
    (``matmul``, ``conv2d``) or a kind (``linear``, ``convolution``, ``embedding``).

    Raises:
        FewbitsError: ``unknown-layer`` for an entry that matches nothing, ``unknown-option`` for
            an expression that is none.
    """
    layers = list(layers)

    def selected(layer: Layer, entry: str) -> bool:
        return entry == layer.kind or matches([entry], layer.name, layer.operator)

    for entry in [*targets, *ignore]:
        if not any(selected(layer, entry) for layer in layers):
            raise FewbitsError(
                "unknown-layer",
                f"{pass_name or 'the pass'}: {entry!r} matches no layer",
                hint=nearest(entry, [layer.name for layer in layers])
                if layers
                else "the model has no layers with weights",
            )
    return [
        layer
        for layer in layers
        if (not targets or any(selected(layer, entry) for entry in targets))
        and not any(selected(layer, entry) for entry in ignore)
    ]
