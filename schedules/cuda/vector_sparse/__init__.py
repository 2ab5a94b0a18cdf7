"""Products of matrices whose zeros come in vectors (Magicube, spec 14)."""

from .layout import STRIDE, SrBcrs, digits, digits_of
from .sddmm import SampledProduct, sampled_product
from .spmm import SparseProduct, sparse_caller, sparse_product
from .turn import filled, turn_rows

__all__ = [
    "STRIDE",
    "SampledProduct",
    "SparseProduct",
    "SrBcrs",
    "digits",
    "digits_of",
    "filled",
    "sampled_product",
    "sparse_caller",
    "sparse_product",
    "turn_rows",
]
