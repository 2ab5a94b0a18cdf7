"""Products with weights of 2 to 8 bits, decoded on their way to tensor cores."""

from .few_bit import FewBit
from .template import DecodeMma, DecodeWgmma, Matvec, Skinny

__all__ = ["DecodeMma", "DecodeWgmma", "FewBit", "Matvec", "Skinny"]
