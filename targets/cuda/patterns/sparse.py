"""Sparse weights on sparse tensor cores, where two of four neighbours at most are stored.

Which zeros a weight has matters, not what its pattern is called: 2:4 always fits, and so do 1:4,
and 4:8 or unstructured zeros where they happen to. What does not fit, or has rows that copies
cannot begin with, takes the kernels of dense weights.
"""

from __future__ import annotations

import numpy as np
from tvm import relax

from ....formats.compressed import CompressedTensor
from ....formats.plain import PlainTensor
from ....formats.sparsity import Dense as DensePattern
from ....passes.layers import Layer
from ....schedules.cuda.epilogue import plain
from ....schedules.cuda.sparse import Sparse24, SparseFewBit
from ....schedules.cuda.sparse.layout import fits
from ....schedules.cuda.sparse.narrow_tile import FEWEST
from ....schedules.cuda.weight_format import Dense, WeightFormat
from .dense import NUMPY_TYPES
from .followers import Followers
from .selection import Operands, Selection


def sparse_linear(selection: Selection, layer: Layer, chain: Followers) -> relax.Var | None:
    """Sparse weights, of floats or of few bits, with float16 or bfloat16 activations."""
    tensor = layer.tensor
    if tensor is None or len(tensor.shape) != 2 or selection.dtype == "float32":
        return None
    if isinstance(tensor, CompressedTensor):
        return _few_bit(selection, layer, tensor, chain)
    weight = layer.weight.astype(NUMPY_TYPES[selection.dtype])
    layout = stored_layout(tensor, weight)
    if not isinstance(layout, Sparse24):
        return None
    packed = layout.pack(weight)
    return selection.linear(_floats(selection, layer), layout, packed, weight.shape[0], chain)


def _few_bit(
    selection: Selection, layer: Layer, tensor: CompressedTensor, chain: Followers
) -> relax.Var | None:
    """2:4 weights of few bits, whose kept codes are decoded inside the product."""
    if SparseFewBit.refusal(tensor) is not None:
        return None
    layout, operands = SparseFewBit.of(tensor), _floats(selection, layer)
    return selection.linear(operands, layout, layout.pack(tensor), tensor.shape[0], chain)


def _floats(selection: Selection, layer: Layer) -> Operands:
    x = selection.matrix(selection.rewriter.map(layer.input), selection.dtype, layer.name)
    return Operands(x, (), plain("float32", "float32"))


def stored_layout(tensor: CompressedTensor | PlainTensor, weight: np.ndarray) -> WeightFormat:
    """How a weight is stored for its kernels: `Sparse24` where that is possible, else dense.

    Args:
        tensor: as it is stored in the module; a dense one stays dense.
        weight: [N, K], what the product multiplies by, in the dtype of the activations.
    """
    dtype = str(weight.dtype)
    aligned = weight.shape[1] * weight.itemsize % FEWEST == 0
    if isinstance(tensor.sparsity, DensePattern) or not aligned or not fits(weight):
        return Dense(dtype)
    return Sparse24(dtype)
