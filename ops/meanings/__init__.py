"""The torch meaning of the Relax operators we accept, one file per family.

All of them run under ``torch.vmap``: nothing here writes in place or branches on the value of a
tensor that depends on the model's input. Shapes and slice bounds may come from constant tensors.
"""

from . import (
    convolution,
    creation,
    elementwise,
    indexing,
    manipulation,
    matrix,
    neural,
    normalization,
    pooling,
    quantization,
    reduction,
    resize,
    searching,
)

__all__ = [
    "convolution",
    "creation",
    "elementwise",
    "indexing",
    "manipulation",
    "matrix",
    "neural",
    "normalization",
    "pooling",
    "quantization",
    "reduction",
    "resize",
    "searching",
]
