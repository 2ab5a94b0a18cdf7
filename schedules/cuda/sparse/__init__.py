"""Products with 2:4 sparse weights on sparse tensor cores: ``mma.sp`` and ``wgmma.sp``."""

from .decode_template import SparseDecode
from .few_bit import SparseFewBit
from .layout import Sparse24
from .mma_template import SparseMma
from .wgmma_template import SparseWgmma

__all__ = ["Sparse24", "SparseDecode", "SparseFewBit", "SparseMma", "SparseWgmma"]
