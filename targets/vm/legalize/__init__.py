"""TIR for what Relax has none, or another meaning than the oracle; correct for every form.

Nothing here is fast: what matters is recognized by `patterns` before, and never comes here.
"""

from __future__ import annotations

from ....ops.compressed import legalize_activations, legalize_decode  # noqa: F401  (they register)
from ....ops.compressed.legalize import COMPRESSED
from . import indexing
from .registry import LEGALIZATIONS

LEGALIZATIONS.update(COMPRESSED)

__all__ = ["LEGALIZATIONS", "indexing"]
