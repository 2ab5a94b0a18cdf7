"""Convolutions with channels last: on tensor cores where there are enough channels, else direct."""

from .convolve import TEMPLATES, Convolve, convolution_digest, convolution_template, convolve
from .implicit import ImplicitGemm
from .problem import Convolution, filling
from .window_sizes import WindowSizes
from .window_template import Windows

__all__ = [
    "TEMPLATES",
    "Convolution",
    "Convolve",
    "ImplicitGemm",
    "WindowSizes",
    "Windows",
    "convolution_digest",
    "convolution_template",
    "convolve",
    "filling",
]
