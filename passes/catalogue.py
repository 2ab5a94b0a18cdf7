"""Every pass that recipes may name; importing this registers them."""

from . import bias_correction as _bias_correction
from . import canonicalize as _canonicalize
from . import equalize as _equalize
from .quantize import quantize as _quantize
from .weights import quantize_weights as _quantize_weights

__all__ = ["_bias_correction", "_canonicalize", "_equalize", "_quantize", "_quantize_weights"]
