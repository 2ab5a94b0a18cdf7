"""Attention between its projections as one kernel (spec 2; online softmax)."""

from .arguments import attention_caller
from .combine import combine_parts, partial_shapes
from .kernel import attention_kernel
from .problem import Attention, refusal

__all__ = [
    "Attention",
    "attention_caller",
    "attention_kernel",
    "combine_parts",
    "partial_shapes",
    "refusal",
]
