"""Products on tensor cores by ``mma.sync``: sm_80, sm_89, and few rows on every generation."""

from .sizes import Sizes
from .template import Mma

__all__ = ["Mma", "Sizes"]
