"""Few-bit weights on microcontrollers: they stay packed in flash, and layers decode what they use.

A weight is a call of ``fewbits.decode`` and at most a transposition or reshape of it. It gets no
buffer and no kernel of its own; the layer that uses it is generated together with it, and the
schedule decides how much of it exists at a time (`tir/schedule.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from tvm import ir, relax

from ...formats.plain import PlainTensor
from ...ops.compressed.weights import decode_call, is_decode

_MOVES = frozenset({"relax.permute_dims", "relax.reshape"})


def few_bit_weight(call: Any, weights: Mapping[relax.Var, relax.Call]) -> relax.Call | None:
    """The call as part of a weight, None for anything else.

    Args:
        call: a binding's value.
        weights: the parts that are known so far.
    """
    if is_decode(call):
        fields = [_without_halves(field) for field in call.args[0].fields]
        return relax.Call(call.op, [relax.Tuple(fields)], call.attrs, call.ty_args)
    operator, first = call.op.name, call.args[0] if call.args else None
    if operator == "relax.astype" and isinstance(first, ir.GenericConst):
        constant: Any = first
        array = constant.value.numpy()
        if array.dtype == np.float16 and str(call.ty.dtype) == "float32":
            return few_bit_weight(decode_call(PlainTensor.from_array(array, "float16")), weights)
    if operator in _MOVES and isinstance(first, relax.Var) and first in weights:
        return call
    return None


def _without_halves(field: Any) -> relax.Expr:
    """C has no float16: its bits, which the decoding knows how to read."""
    array = field.value.numpy()
    return relax.const(array.view(np.uint16)) if array.dtype == np.float16 else field
