"""LLM.int8 with outliers found at run time (spec 2): the product of the outlier columns."""

from __future__ import annotations

from typing import Any

import numpy as np
from tvm import relax

from ....formats.compressed import CompressedTensor
from ....formats.granularity import PerChannel, PerTensor
from ....formats.integer import Integer
from ....formats.plain import PlainTensor
from ....formats.sparsity import Dense as DensePattern
from ....passes.layers import Layer
from ....passes.rewrite import constant, operator_of
from ....schedules.cuda.epilogue import plain, scaled
from .dense import NUMPY_TYPES
from .followers import Followers
from .selection import Operands, Selection


def outlier_linear(selection: Selection, layer: Layer, chain: Followers) -> relax.Var | None:
    """``matmul(multiply(x, outlier_columns(...)), weight)`` over the outliers alone.

    None for other inputs, and for weights that are neither floats nor int8 with a scale per output.
    """
    values = selection.rewriter.values
    product: Any = values.get(layer.input)
    if selection.dtype == "float32" or operator_of(product) != "relax.multiply":
        return None
    x, mask = product.args
    if operator_of(values.get(mask)) != "fewbits.outlier_columns":
        return None
    stored = _weight(selection, layer)
    if stored is None:
        return None
    weight, column = stored
    meaning, extra = plain("float32", "float32"), ()
    if column is not None:
        meaning = scaled("float32", row=False, accumulator="float32")
        extra = (constant(column),)
    given = selection.matrix(selection.rewriter.map(x), selection.dtype, layer.name)
    operands = Operands(given, extra, meaning)
    return selection.outliers(operands, selection.rewriter.map(mask), weight, chain)


def _weight(selection: Selection, layer: Layer) -> tuple[np.ndarray, np.ndarray | None] | None:
    """The matrix [N, K], and a scale per output where it holds int8 codes."""
    tensor = layer.tensor
    if tensor is None:
        return layer.weight.astype(NUMPY_TYPES[selection.dtype]), None
    if len(tensor.shape) != 2 or not isinstance(tensor.sparsity, DensePattern):
        return None
    if isinstance(tensor, PlainTensor):
        return layer.weight.astype(NUMPY_TYPES[selection.dtype]), None
    if not isinstance(tensor, CompressedTensor) or tensor.zero_points is not None:
        return None
    levels = tensor.number_format
    if not isinstance(levels, Integer) or levels.bits > 8 or not levels.signed:
        return None
    if tensor.granularity not in (PerTensor(), PerChannel(0)):
        return None
    codes = levels.decode(tensor.codes()).astype(np.int8)
    scales = np.broadcast_to(tensor.scales.values(), (tensor.shape[0],))
    return codes, np.ascontiguousarray(scales, np.float32)
