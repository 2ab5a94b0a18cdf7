"""Products that no activation format concerns: weights as floats, or decoded on the way."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
from tvm import relax

from ....formats.compressed import CompressedTensor
from ....formats.plain import PlainTensor
from ....formats.sparsity import Dense as DensePattern
from ....ops.symbolic import extents_of
from ....passes.layers import Layer
from ....schedules.cuda.epilogue import plain
from ....schedules.cuda.weight_format import Dense
from ....schedules.cuda.weight_only import FewBit
from ....schedules.cuda.weight_only.few_bit import refusal
from .followers import Followers
from .selection import Operands, Selection

#: TVM's expressions and types are built by calls that its annotations do not cover.
_op: Any = relax.op

NUMPY_TYPES: dict[str, Any] = {
    "float16": np.float16,
    "bfloat16": ml_dtypes.bfloat16,
    "float32": np.float32,
}


def dense_linear(selection: Selection, layer: Layer, chain: Followers) -> relax.Var | None:
    """Float weights, in the type of the activations; None for compressed ones."""
    tensor = layer.tensor
    if isinstance(tensor, CompressedTensor):
        return None
    if isinstance(tensor, PlainTensor) and not isinstance(tensor.sparsity, DensePattern):
        return None
    layout = Dense(selection.dtype)
    weight = layer.weight.astype(NUMPY_TYPES[selection.dtype])
    arrays = layout.pack(weight)
    return selection.linear(_floats(selection, layer), layout, arrays, weight.shape[0], chain)


def few_bit_linear(selection: Selection, layer: Layer, chain: Followers) -> relax.Var | None:
    """Weights of few bits, decoded inside the product; None for what has no such layout."""
    tensor = layer.tensor
    if not isinstance(tensor, CompressedTensor) or selection.dtype == "float32":
        return None
    if refusal(tensor) is not None:
        return None
    layout = FewBit.of(tensor)
    operands = _floats(selection, layer)
    return selection.linear(operands, layout, layout.pack(tensor), tensor.shape[0], chain)


def decoded_linear(selection: Selection, layer: Layer, chain: Followers) -> relax.Var | None:
    """Any other stored weight: decoded into memory first, at every call."""
    if layer.tensor is None or len(layer.shape) != 2:
        return None
    name = layer.name
    stored = selection.rewriter.map(layer.source)
    if not isinstance(stored, relax.Var):
        stored = selection.rewriter.emit(stored, name)
    weight = selection.rewriter.emit(_op.astype(stored, selection.dtype), name)
    operands = _floats(selection, layer)
    return selection.linear(
        operands, Dense(selection.dtype), [weight], int(extents_of(weight)[0]), chain
    )


def _floats(selection: Selection, layer: Layer) -> Operands:
    x = selection.matrix(selection.rewriter.map(layer.input), selection.dtype, layer.name)
    return Operands(x, (), plain("float32", "float32"))
