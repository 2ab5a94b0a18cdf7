"""Tensors as the model stores them: checked before they are read."""

from __future__ import annotations

import math

import numpy as np
import onnx

from ...errors import FewbitsError
from .limits import LARGEST_TENSOR_BYTES

_BITS = {
    onnx.TensorProto.UINT4: 4,
    onnx.TensorProto.INT4: 4,
    onnx.TensorProto.FLOAT4E2M1: 4,
    getattr(onnx.TensorProto, "UINT2", -1): 2,
    getattr(onnx.TensorProto, "INT2", -1): 2,
}


def byte_size(tensor: onnx.TensorProto) -> int:
    """How many bytes the tensor's raw data must have.

    Raises:
        FewbitsError: ``unsupported-dtype``, ``invalid-shape``, ``tensor-too-large``.
    """
    where = f"tensor {tensor.name!r}"
    code = tensor.data_type
    if code in (onnx.TensorProto.STRING, onnx.TensorProto.UNDEFINED):
        kind = "strings" if code == onnx.TensorProto.STRING else "no element type"
        raise FewbitsError("unsupported-dtype", f"{where} has {kind}", where=where)
    try:
        dtype = onnx.helper.tensor_dtype_to_np_dtype(code)
    except KeyError:
        raise FewbitsError(
            "unsupported-dtype", f"{where} has the unknown element type {code}", where=where
        ) from None
    shape = list(tensor.dims)
    if any(extent < 0 for extent in shape):
        raise FewbitsError("invalid-shape", f"{where} has shape {shape}", where=where)
    bits = _BITS.get(code, dtype.itemsize * 8)
    size = -(-math.prod(shape) * bits // 8)
    if size > LARGEST_TENSOR_BYTES:
        raise FewbitsError(
            "tensor-too-large",
            f"{where} of shape {shape} needs {size:,} bytes; the limit is {LARGEST_TENSOR_BYTES:,}",
            where=where,
        )
    return size


def read(tensor: onnx.TensorProto) -> np.ndarray:
    """The tensor's values; nothing is allocated before shape and data are known to agree.

    Raises:
        FewbitsError: ``invalid-tensor`` where they do not, and those of `byte_size`.
    """
    where = f"tensor {tensor.name!r}"
    expected = byte_size(tensor)
    if tensor.HasField("raw_data") and len(tensor.raw_data) != expected:
        raise FewbitsError(
            "invalid-tensor",
            f"{where} has {len(tensor.raw_data):,} bytes of data, "
            f"but its shape {list(tensor.dims)} needs {expected:,}",
            where=where,
        )
    try:
        return np.array(onnx.numpy_helper.to_array(tensor)).reshape(tuple(tensor.dims))
    except (ValueError, TypeError, OverflowError) as error:
        raise FewbitsError(
            "invalid-tensor", f"{where} cannot be read: {error}", where=where
        ) from error
