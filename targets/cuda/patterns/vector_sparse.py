"""Weights whose zeros come in vectors: products that gather the activations (Magicube, spec 14)."""

from __future__ import annotations

from typing import Any

import numpy as np
from tvm import relax

from ....formats.compressed import CompressedTensor
from ....formats.granularity import PerChannel, PerTensor
from ....formats.vectors import Vectors
from ....ops.symbolic import extents_of
from ....passes.layers import Layer
from ....passes.rewrite import constant
from ....schedules.cuda.epilogue import scaled
from ....schedules.cuda.vector_sparse import (
    SparseProduct,
    SrBcrs,
    filled,
    sparse_caller,
    sparse_product,
    turn_rows,
)
from ...vm.calls import tensor_type
from .followers import Followers
from .quantized import LONGEST, activation_of, codes_of, is_int8
from .selection import Operands, Selection

#: TVM's expressions and types are built by calls that its annotations do not cover.
_relax: Any = relax

#: With fewer zeros a dense product of bytes is taken, which the same weight also has. Not measured.
_SPARSE = 0.7


def vector_sparse_linear(selection: Selection, layer: Layer, chain: Followers) -> relax.Var | None:
    """int8 times vector-sparse int8; None for other pairs, and for weights with few zeros."""
    activation = activation_of(selection.rewriter.values.get(layer.input))
    tensor = layer.tensor
    if activation is None or not is_int8(activation.format):
        return None
    if not isinstance(tensor, CompressedTensor) or not isinstance(tensor.sparsity, Vectors):
        return None
    if not is_int8(tensor.number_format) or tensor.zero_points is not None:
        return None
    if tensor.granularity not in (PerTensor(), PerChannel(0)) or tensor.shape[1] > LONGEST:
        return None
    mask = tensor.mask()
    if mask.mean() > 1 - _SPARSE:
        return None
    outputs, inputs = tensor.shape
    integers = tensor.number_format.decode(tensor.codes()).astype(np.int64) * mask
    stored = SrBcrs.of(integers, tensor.sparsity.length)
    column = np.broadcast_to(tensor.scales.values(), (outputs,)).astype(np.float32)
    if activation.scale is not None:
        column = column * activation.scale
    codes, scales = codes_of(selection, activation, np.int8, layer.name)
    extra = (constant(column),) if scales is None else (scales, constant(column))
    meaning = scaled("float32", row=activation.scales == "token", one=activation.scales == "tensor")
    epilogue, given = selection.epilogue(Operands(codes, extra, meaning), chain)
    problem = SparseProduct(inputs, outputs, stored.length, stored.strides, 8, 8, epilogue)
    name = str(chain.last.name)

    def make(title: str) -> tuple[Any, Any]:
        kernel = sparse_product(problem, selection.architecture, title)
        return kernel, sparse_caller(problem, selection.architecture, kernel)

    _, host = selection.special(problem.key, make, "vector_sparse")
    share = 100 * (1 - mask.mean())
    selection.notes[layer.name] = f"vector-sparse {stored.length}x1, {share:.0f} % zeros"
    rows = extents_of(codes)[0]
    turned = selection.call(
        f"turn K={inputs}", turn_rows(inputs), [codes],
        [tensor_type((1, inputs, filled(rows)), "uint8")], name,
    )  # fmt: skip
    arrays = [constant(array) for array in problem.pack_weight(stored)]
    result = tensor_type((rows, outputs), epilogue.dtype)
    y = selection.call(problem.key, host, [turned, *arrays, *given], [result], name)
    return selection.restored(y, chain, epilogue.dtype)
