"""Products of arbitrary few bits through binary tensor cores (APNN-TC, spec 18)."""

from .caller import Binary, binary_kernels
from .encoding import Encoding, words
from .kernel import binary_product
from .pack import PackRows, pack_rows
from .problem import BinaryProduct, Window
from .sizes import Sizes, rule, space

__all__ = [
    "Binary",
    "BinaryProduct",
    "Encoding",
    "PackRows",
    "Sizes",
    "Window",
    "binary_kernels",
    "binary_product",
    "pack_rows",
    "rule",
    "space",
    "words",
]
