"""Every pass that recipes may name; importing this registers them."""

from . import canonicalize as _canonicalize
from .quantize import quantize as _quantize

__all__ = ["_canonicalize", "_quantize"]
