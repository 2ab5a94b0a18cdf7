"""Operators that let a few-bit value mean something on every target (docs/architecture.md)."""

from . import activations, weights

__all__ = ["activations", "weights"]
