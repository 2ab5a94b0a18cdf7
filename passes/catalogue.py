"""Every pass that recipes may name; importing this registers them."""

from .quantize import quantize as _quantize

__all__ = ["_quantize"]
