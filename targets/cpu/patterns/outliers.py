"""LLM.int8 with outliers found at run time (spec 2): the product of the outlier columns."""

from __future__ import annotations

from typing import Any

from tvm import relax

from ....formats.plain import PlainTensor
from ....formats.sparsity import Dense
from ....passes.layers import Layer
from ....passes.rewrite import constant, operator_of
from ....schedules.cpu.int8_outliers import OutlierLinear
from .chains import Chain
from .selection import Selection, known, leading
from .weight_only import compressed_weight, plain_weight


def outlier_linear(selection: Selection, layer: Layer, chain: Chain) -> relax.Var | None:
    """``matmul(multiply(x, outlier_columns(...)), weight)`` with a kernel that skips the rest.

    None for other inputs, sparse weights and scales that change along a row.
    """
    values = selection.rewriter.values
    product: Any = values.get(layer.input)
    tensor = layer.tensor
    if operator_of(product) != "relax.multiply" or tensor is None:
        return None
    x, mask = product.args
    if operator_of(values.get(mask)) != "fewbits.outlier_columns":
        return None
    if len(tensor.shape) != 2 or not isinstance(tensor.sparsity, Dense):
        return None
    outputs, length = tensor.shape
    if isinstance(tensor, PlainTensor):
        packed = plain_weight(tensor, tensor.values.reshape(tensor.shape), selection)
    else:
        packed = compressed_weight(tensor, tensor.codes(), selection)
    if packed is None or packed[2] < length:
        return None
    decoder, scales, _, arrays = packed
    kernel = OutlierLinear(
        selection.machine.lanes, known(leading(layer.call)), length, outputs, decoder, scales,
        chain.epilogue,
    )  # fmt: skip
    name = tensor.dtype if isinstance(tensor, PlainTensor) else tensor.number_format.name
    selection.notes[layer.name] = f"outlier columns {name}"
    inputs = [selection.rewriter.map(x), selection.rewriter.map(mask), *map(constant, arrays)]
    return selection.emit_layer(kernel, inputs, chain, outputs, layer.name)
