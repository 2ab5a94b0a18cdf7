"""Products with binary-coded weights: tables of signed sums, and sign planes on tensor cores."""

from .binary_coded import BinaryCoded
from .template import DecodeBinary, Lut

__all__ = ["BinaryCoded", "DecodeBinary", "Lut"]
