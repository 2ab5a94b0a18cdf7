"""Operators that let a few-bit value mean something on every target (docs/architecture.md)."""

from . import activations, weights

#: The operators of the compressed form; their results are float32.
OPERATORS = frozenset({"fewbits.decode", "fewbits.fake_quantize", "fewbits.outlier_columns"})

__all__ = ["OPERATORS", "activations", "weights"]
