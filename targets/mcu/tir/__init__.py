"""C for operators without a hand-written kernel, from their TIR."""

from .route import lower_with_tir

__all__ = ["lower_with_tir"]
