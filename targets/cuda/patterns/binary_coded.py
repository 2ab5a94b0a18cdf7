"""Products with binary-coded weights: looked up for few rows, on tensor cores for more (spec 5)."""

from __future__ import annotations

from tvm import relax

from ....formats.compressed import CompressedTensor
from ....passes.layers import Layer
from ....schedules.cuda.epilogue import plain
from ....schedules.cuda.lookup import BinaryCoded
from ....schedules.cuda.lookup.binary_coded import refusal
from .followers import Followers
from .selection import Operands, Selection


def binary_coded_linear(selection: Selection, layer: Layer, chain: Followers) -> relax.Var | None:
    """Planes of signs with scales; None for other formats, and for groups of odd sizes.

    None for float32 as well: many rows of it have no kernel that decodes as it multiplies.
    """
    tensor = layer.tensor
    if not isinstance(tensor, CompressedTensor) or selection.dtype == "float32":
        return None
    if refusal(tensor) is not None:
        return None
    layout = BinaryCoded.of(tensor)
    x = selection.matrix(selection.rewriter.map(layer.input), selection.dtype, layer.name)
    operands = Operands(x, (), plain("float32", "float32"))
    return selection.linear(operands, layout, layout.pack(tensor), tensor.shape[0], chain)
