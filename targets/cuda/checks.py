"""What is refused before anything is compiled: scales that would make every result NaN."""

from __future__ import annotations

from typing import Any

import numpy as np
from tvm import ir

from ...errors import FewbitsError
from ...ops.compressed.weights import is_decode
from ...passes.rewrite import Rewriter, as_array, operator_of

_SCALED = frozenset({"relax.quantize", "relax.dequantize", "fewbits.fake_quantize"})


def check_scales(module: ir.IRModule) -> None:
    """Refuse scales that are NaN or infinite.

    Raises:
        FewbitsError: ``bad-scales``, with the layer.
    """
    for var, value in Rewriter(module).bindings:
        if not all(np.isfinite(scales).all() for scales in _scales(value)):
            raise FewbitsError(
                "bad-scales",
                "a scale is NaN or infinite",
                where=var.name,
                hint="look at the model's weights, or calibrate with other data",
            )


def _scales(value: Any) -> list[np.ndarray]:
    if is_decode(value):
        arguments = value.args[0].fields
    elif operator_of(value) in _SCALED:
        arguments = value.args[1:2]
    else:
        return []
    arrays = [as_array(a) for a in arguments if isinstance(a, ir.GenericConst)]
    return [array for array in arrays if array.dtype.kind == "f"]
