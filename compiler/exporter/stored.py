"""A compressed module's weights for a safetensors file: every format, whatever ONNX can say.

What is stored in few bits goes into the file as it is; other weights, biases and scales go along as
floats, so that the file holds all that the model has learned. The graph is not in it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from tvm import ir, relax

from ...formats.compressed import CompressedTensor
from ...formats.granularity import Granularity, PerChannel, PerTensor
from ...formats.integer import Integer
from ...formats.plain import PlainTensor, StoredTensor
from ...formats.scales import store_scales
from ...ops.compressed.weights import is_decode, tensor_of
from .graph import constant_array, layer_name


def stored_tensors(module: ir.IRModule) -> dict[str, StoredTensor]:
    """The weights of a module by name, for `formats.storage.save_tensors`.

    A layer's weight is ``<layer>.weight`` (a second one of the same layer, such as that of
    LLM.int8's outliers, ``<layer>.weight:1``); another constant is ``<layer>.<argument>``. Integers
    that are no weights (shapes, indices, positions) and constants with infinities (masks) are part
    of the graph and left out, and so are single numbers.
    """
    found: dict[str, StoredTensor] = {}
    function: Any = module["main"]
    bindings = [b for block in function.body.blocks for b in block.bindings]
    names = {binding.var.name for binding in bindings}
    for binding in bindings:
        call: Any = binding.value
        if not isinstance(call, relax.Call):
            continue
        layer = layer_name(binding.var.name, names)
        if is_decode(call):
            found[_free(f"{layer}.weight", found)] = tensor_of(call)
            continue
        operator: Any = call.op
        if operator.name == "relax.dequantize" and (tensor := _dequantized(call)) is not None:
            found[_free(f"{layer}.weight", found)] = tensor
            continue
        for index, argument in enumerate(call.args):
            array = constant_array(argument)
            if array is None or array.dtype.kind != "f" or array.size < 2:
                continue
            if np.isfinite(array).all():
                known = operator.arguments
                label = known[index].name if index < len(known) else f"argument{index}"
                name = _free(f"{layer}.{label}", found)
                found[name] = PlainTensor.from_array(array, _plain(array))
    return found


def _plain(array: np.ndarray) -> Any:
    return "float16" if array.dtype == np.float16 else "float32"


def _free(name: str, taken: dict[str, StoredTensor]) -> str:
    candidate, count = name, 0
    while candidate in taken:
        count += 1
        candidate = f"{name}:{count}"
    return candidate


def _dequantized(call: Any) -> StoredTensor | None:
    """A weight of the QDQ form, int8; its int32 bias as floats; None for run-time values."""
    codes, scales, zeros = (constant_array(argument) for argument in call.args)
    if codes is None or scales is None or zeros is None:
        return None
    scales = scales.astype(np.float32)
    axis = int(call.attrs.axis) % max(1, codes.ndim)
    if codes.dtype != np.int8:
        shape = [size if i == axis else 1 for i, size in enumerate(codes.shape)]
        steps = scales.reshape(shape) if scales.size > 1 else scales.reshape(())
        offsets = zeros.reshape(shape) if zeros.size > 1 else zeros.reshape(())
        values = (codes.astype(np.float64) - offsets) * steps
        return PlainTensor.from_array(values.astype(np.float32))
    granularity: Granularity = PerChannel(axis) if scales.size > 1 else PerTensor()
    grid = scales.reshape(-1) if scales.size > 1 else scales.reshape(())
    stored_zeros = None
    if zeros.any():
        stored_zeros = np.broadcast_to(zeros.reshape(-1 if zeros.size > 1 else ()), grid.shape)
        stored_zeros = stored_zeros.astype(np.int8).view(np.uint8)
    return CompressedTensor.from_codes(
        np.ascontiguousarray(codes).view(np.uint8),
        Integer(8),
        granularity,
        store_scales(grid),
        zero_points=stored_zeros,
    )
