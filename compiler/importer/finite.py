"""Refuse weights that are not numbers.

A NaN in a weight spoils every result, and there is no integer for it. Infinities elsewhere are
fine: bounds of Clip and attention masks are written so.
"""

from __future__ import annotations

import numpy as np

from .node import Node
from .values import Known

_WEIGHTED = frozenset(
    [
        "Conv",
        "ConvTranspose",
        "Gemm",
        "MatMul",
        "BatchNormalization",
        "InstanceNormalization",
        "LayerNormalization",
        "GroupNormalization",
        "RMSNormalization",
        "PRelu",
        "QLinearConv",
        "QLinearMatMul",
        "DequantizeLinear",
        "QuantizeLinear",
    ]
)


def check_weights(node: Node) -> None:
    """Refuse NaN and infinity in the constants of operators that multiply by them.

    Raises:
        FewbitsError: ``not-finite``.
    """
    if node.operator not in _WEIGHTED:
        return
    for value in node.inputs:
        if not isinstance(value, Known) or value.is_finite:
            continue
        wrong = np.count_nonzero(~np.isfinite(value.array.astype("float32")))
        raise node.error(
            "not-finite",
            f"the weights {value.name!r} hold NaN or infinity ({wrong} of {value.array.size})",
            "the training may have diverged, or the export overflowed float16",
        )
