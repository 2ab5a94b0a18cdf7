"""Every pass that recipes may name; importing this registers them."""

from . import bias_correction as _bias_correction
from . import canonicalize as _canonicalize
from . import equalize as _equalize
from . import half_weights as _half_weights
from . import quantize_activations as _quantize_activations
from . import smooth as _smooth
from . import split_outliers as _split_outliers
from .quantize import quantize as _quantize
from .weights import prune as _prune
from .weights import quantize_weights as _quantize_weights

__all__ = [
    "_bias_correction",
    "_canonicalize",
    "_equalize",
    "_half_weights",
    "_prune",
    "_quantize",
    "_quantize_activations",
    "_quantize_weights",
    "_smooth",
    "_split_outliers",
]
