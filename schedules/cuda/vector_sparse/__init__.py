"""Products of matrices whose zeros come in vectors (Magicube, spec 14)."""

from .layout import STRIDE, SrBcrs, digits, digits_of
from .spmm import SparseProduct, sparse_caller, sparse_product

__all__ = [
    "STRIDE",
    "SparseProduct",
    "SrBcrs",
    "digits",
    "digits_of",
    "sparse_caller",
    "sparse_product",
]
