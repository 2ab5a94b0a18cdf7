"""Every maker of kernels for products, most special first."""

from __future__ import annotations

import functools

from .architecture import Architecture
from .problem import Linear
from .template import Template


@functools.cache
def templates() -> tuple[Template, ...]:
    """All templates. The last takes every product of a dense weight."""
    from .hopper import Wgmma
    from .lookup import DecodeBinary, Lut
    from .mma import Mma
    from .simt import Simt
    from .sparse import SparseDecode, SparseMma, SparseWgmma
    from .weight_only import DecodeMma, DecodeWgmma, Matvec, Skinny

    sparse = (SparseWgmma(), SparseMma(), SparseDecode())
    few_bit = (DecodeWgmma(), DecodeMma(), Skinny(), Matvec())
    return (Wgmma(), Mma(), *sparse, *few_bit, Lut(), DecodeBinary(), Simt())


def suitable(problem: Linear, architecture: Architecture) -> list[Template]:
    """The templates that have a kernel for a product."""
    return [t for t in templates() if t.refusal(problem, architecture) is None]
