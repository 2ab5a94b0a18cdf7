"""Products without tensor cores: the correct kernel for every shape.

Odd depths, rows of any length and float32 have no tensor-core kernel; this template refuses no
dense weight. It is the slower path: `dispatch.py` takes it only where no other kernel is.
"""

from .template import Simt, Sizes

__all__ = ["Simt", "Sizes"]
