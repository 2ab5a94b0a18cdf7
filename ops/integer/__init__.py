"""The int8 dialect: operators whose every bit is defined, so that all targets agree.

Definitions are in docs/architecture.md; each file declares the type rule and the torch meaning of
one family, and `legalize` their TIR. All activations are int8 and channels last.
"""

from . import elementwise, multiply_accumulate, pooling, softmax
from . import legalize as legalize  # last: it needs the operators

__all__ = ["elementwise", "legalize", "multiply_accumulate", "pooling", "softmax"]
