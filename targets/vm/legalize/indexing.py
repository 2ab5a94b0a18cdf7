"""Operators whose TIR for firmware is the right one here as well.

TVM rounds quantization half away from zero where ONNX rounds half to even, sends sorting to library
calls, and reads foreign memory where an index is out of range.
"""

from __future__ import annotations

from tvm import relax
from tvm.ir import prim

# They register themselves.
from ...mcu.tir import legalize_indexing, legalize_ordering  # noqa: F401
from ...mcu.tir.legalize import LEGALIZATIONS as FIRMWARE
from .registry import LEGALIZATIONS, Legalization

#: Those that want numbers; where sizes are symbolic, TVM's own take their place.
_STATIC = frozenset({"relax.nn.rms_norm"})


def _static(name: str) -> Legalization:
    own = FIRMWARE[name]

    def legalize(builder: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
        if _is_static(call):
            return own(builder, call)
        return call.op.get_attr("FLegalize")(builder, call)

    return legalize


def _is_static(call: relax.Call) -> bool:
    tensors = [a.ty for a in call.args if isinstance(a.ty, relax.TensorType)]
    return all(isinstance(size, prim.IntImm) for ty in tensors for size in ty.shape.values)


LEGALIZATIONS.update(
    {name: _static(name) if name in _STATIC else own for name, own in FIRMWARE.items()}
)
