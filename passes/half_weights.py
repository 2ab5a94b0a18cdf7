"""The `half_weights` pass: weights as half-precision floats, the plainest compression there is."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import numpy as np
from tvm import ir, relax

from ..errors import FewbitsError
from .base import Pass, PassContext, register_pass
from .layers import Layer, find_layers, select_layers
from .rewrite import Rewriter

_op: Any = relax.op


@register_pass
@dataclasses.dataclass(frozen=True)
class HalfWeights(Pass):
    """Float weights in float16, converted where they are used.

    Attributes:
        embeddings: tables that are looked up in, too.
        targets: the layers to convert; all if empty.
        ignore: layers that stay as they are.
    """

    name: ClassVar[str] = "half_weights"

    embeddings: bool = False
    targets: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()

    def apply(self, module: ir.IRModule, context: PassContext) -> ir.IRModule:
        """The module with ``astype(constant float16, "float32")`` for weights.

        Raises:
            FewbitsError: ``unknown-layer``; ``scale-overflow`` for weights beyond float16.
        """
        layers = [layer for layer in find_layers(module) if layer.tensor is None]
        if not self.embeddings and not self.targets:
            layers = [layer for layer in layers if layer.kind != "embedding"]
        chosen = {
            layer.var: layer
            for layer in select_layers(layers, self.targets, self.ignore, self.name)
        }
        rewriter = Rewriter(module)
        for var, value in rewriter.bindings:
            layer = chosen.get(var)
            if layer is None:
                rewriter.keep(var, value)
            else:
                rewriter.replace(var, _emit(rewriter, layer))
                context.note(self.name, layer.name, "weights are float16")
        return rewriter.finish()


def _emit(rewriter: Rewriter, layer: Layer) -> relax.Var:
    """The layer again, its weight stored output channel first in float16."""
    with np.errstate(over="ignore"):
        half = layer.weight.astype(np.float16)
    if not np.isfinite(half).all():
        raise FewbitsError(
            "scale-overflow", "weights are beyond what float16 holds", where=layer.name,
            hint="ignore the layer, or store it in another format",
        )  # fmt: skip
    name = layer.name
    weight = rewriter.emit(_op.astype(relax.const(half, "float16"), "float32"), name)
    if layer.kind == "linear":
        weight = rewriter.emit(_op.permute_dims(weight), name)
    x = rewriter.map(layer.input)
    first = [weight, x] if layer.kind == "embedding" else [x, weight]
    rest = [rewriter.map(argument) for argument in layer.call.args[2:]]
    call = relax.Call(layer.call.op, [*first, *rest], layer.call.attrs, layer.call.ty_args)
    return rewriter.emit(call, name)
