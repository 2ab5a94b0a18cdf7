"""What passes that need float layers refuse."""

from __future__ import annotations

from collections.abc import Iterable

from tvm import ir, relax

from ...errors import FewbitsError
from ..layers import Layer
from ..rewrite import Rewriter, operator_of


def refuse_compressed(module: ir.IRModule, layers: Iterable[Layer], hint: str) -> None:
    """Refuse layers whose weights are compressed, or whose inputs are rounded, already.

    Raises:
        FewbitsError: ``already-compressed``, for the first of them, with this hint.
    """
    values = Rewriter(module).values
    for layer in layers:
        before = values.get(layer.input) if isinstance(layer.input, relax.Var) else None
        rounded = operator_of(before) == "fewbits.fake_quantize"
        if layer.tensor is not None or rounded:
            what = "input is rounded" if rounded else "weight is compressed"
            raise FewbitsError(
                "already-compressed",
                f"the layer's {what} already",
                where=layer.name,
                hint=hint,
            )
