"""What is refused because no result could be right: scales that are NaN, values beyond half."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import ml_dtypes
import numpy as np
from tvm import ir, relax

from ...errors import FewbitsError
from ...ops.compressed.weights import is_decode
from ...ops.evaluate import Evaluator
from ...passes.layers import find_layers
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


def check_weights(module: ir.IRModule, float_type: str) -> None:
    """Refuse float weights that are out of the range of the type they will be stored in.

    Raises:
        FewbitsError: ``half-overflow``, with the layer.
    """
    limit = float(ml_dtypes.finfo(float_type).max)
    for layer in find_layers(module):
        if isinstance(layer.source, ir.GenericConst):
            largest = float(np.abs(as_array(layer.source)).max(initial=0))
            if largest > limit:
                raise overflow("a weight", layer.name, largest, float_type)


def overflowing(
    module: ir.IRModule, inputs: Sequence[np.ndarray], float_type: str
) -> FewbitsError | None:
    """``half-overflow`` for the first layer whose result leaves a type's range, or None.

    Args:
        module: computes in float32.
        inputs: samples; the first axis counts them.
        float_type: what activations are stored in.
    """
    limit = float(ml_dtypes.finfo(float_type).max)
    named = dict(zip(Evaluator(module).input_names, inputs, strict=True))
    names = [var.name for var, value in Rewriter(module).bindings if _is_activation(var, value)]
    for values in Evaluator(module).batched(named, names):
        for name in names:
            magnitude = np.abs(values[name].numpy())
            largest = float(np.max(magnitude, initial=0, where=np.isfinite(magnitude)))
            if largest > limit:
                return overflow("a value", name, largest, float_type)
    return None


def overflow(what: str, layer: str, largest: float, float_type: str) -> FewbitsError:
    """``half-overflow``: a number that a type has no room for."""
    return FewbitsError(
        "half-overflow",
        f"{what} is {largest:.4g}, but {float_type} ends at {ml_dtypes.finfo(float_type).max:.4g}",
        where=layer,
        hint="compile with --float float32, or bfloat16 where that has the range",
    )


def _is_activation(var: Any, value: Any) -> bool:
    floats = isinstance(var.ty, relax.TensorType) and str(var.ty.dtype) == "float32"
    return floats and isinstance(value, relax.Call) and not is_decode(value)
