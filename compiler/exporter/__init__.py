"""Relax to ONNX: a float or QDQ module as a model that every ONNX run time can execute.

It is the other end of the importer, and what ``fewbits quantize`` writes: the compressed model in
the ecosystem's own form, with few-bit weights stored in few bits.
"""

from __future__ import annotations

from .export import export_onnx
from .stored import stored_tensors

__all__ = ["export_onnx", "stored_tensors"]
