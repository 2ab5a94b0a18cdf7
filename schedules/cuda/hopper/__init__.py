"""Second tier: generators of kernels for Hopper's own instructions."""

from .template import Wgmma

__all__ = ["Wgmma"]
