"""TIR for what Relax has none, or another meaning than the oracle; correct for every form.

Nothing here is fast: what matters is recognized by `patterns` before, and never comes here.
"""

from __future__ import annotations

from . import activations, decode, indexing
from .registry import LEGALIZATIONS

__all__ = ["LEGALIZATIONS", "activations", "decode", "indexing"]
