"""The int8 dialect: operators whose every bit is defined, so that all targets agree.

Definitions are in docs/architecture.md; each file declares the type rule and the torch meaning of
one family, and `legalize` their TIR. All activations are int8 and channels last.
"""

from . import elementwise, functions, multiply_accumulate, normalization, pooling, softmax
from . import legalize as legalize  # last: it needs the operators
from . import legalize_functions as legalize_functions

__all__ = [
    "elementwise",
    "functions",
    "legalize",
    "legalize_functions",
    "multiply_accumulate",
    "normalization",
    "pooling",
    "softmax",
]
