"""Few-bit weights of ONNX models, kept in their few bits: ``fewbits.decode`` of their own codes.

Blocked and FP8 ``DequantizeLinear`` of constants, and onnxruntime's ``MatMulNBits``. Matrices come
out as ``[O, I]`` with the transposition after them, the form that every pass and kernel knows.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import helper
from tvm import relax

from ...errors import FewbitsError
from ...formats.compressed import CompressedTensor
from ...formats.granularity import PerChannel, PerGroup
from ...formats.integer import Integer
from ...formats.matmul_nbits import MatMulNBits, from_matmul_nbits
from ...formats.onnx_layout import LinearLayout, from_element_type, from_linear
from ...formats.packing import pack
from ...formats.scales import store_scales
from ...ops.compressed.weights import decode_call
from .node import Node, Result

op: Any = relax.op  # its annotations are narrower than what it takes


def decoded(node: Node) -> relax.Expr | None:
    """A ``DequantizeLinear`` whose inputs are all known, as ``fewbits.decode``.

    None where the codes have no few-bit format, or scales are negative, which no format has (the
    caller decides what becomes of them).
    """
    codes, scales = node.constant(0), node.constant(1)
    zeros = node.constant(2) if node.has(2) else None
    if codes is None or scales is None or scales.dtype != np.float32 or (scales < 0).any():
        return None
    number = helper.np_dtype_to_tensor_dtype(codes.dtype)
    try:
        bits = from_element_type(number).bits
        axis = node.int("axis", 1)
        axis = node.normalize_axis(axis, codes.ndim) if scales.size > 1 else 0
        layout = LinearLayout(
            element_type=number,
            shape=codes.shape,
            raw=_raw(codes, bits),
            scales=scales,
            zero_points=None if zeros is None else _raw(zeros, bits),
            axis=axis,
            block_size=node.int("block_size", 0),
        )
        tensor = from_linear(layout)
    except FewbitsError as error:
        if error.code == "no-onnx-type":
            return None
        raise node.error("invalid-node", error.message) from error
    return _emit(_narrow_scales(tensor))


def _raw(codes: np.ndarray, bits: int) -> bytes:
    """ONNX's bytes of values that numpy holds one to a byte."""
    patterns = codes.view(np.uint8) if codes.dtype.itemsize == 1 else codes.astype(np.uint8)
    return pack(patterns & np.uint8((1 << bits) - 1), bits).tobytes()


def _narrow_scales(tensor: CompressedTensor) -> CompressedTensor:
    """Scales in 16 bits where that loses nothing, as they were before a ``Cast``."""
    scales = tensor.scales.values()
    with np.errstate(over="ignore"):
        exact = np.array_equal(scales.astype(np.float16).astype(np.float32), scales)
    if not exact:
        return tensor
    return CompressedTensor.from_codes(
        tensor.codes(),
        tensor.number_format,
        tensor.granularity,
        store_scales(scales, "float16"),
        zero_points=tensor.zero_points,
    )


def _signed(tensor: CompressedTensor, symmetric: bool) -> CompressedTensor:
    """Without zero points in the operator the middle is 0: plain signed integers."""
    if not symmetric:
        return tensor
    bits = tensor.number_format.bits
    return CompressedTensor.from_codes(
        tensor.codes() ^ np.uint8(1 << (bits - 1)),
        Integer(bits),
        tensor.granularity,
        tensor.scales,
    )


def _emit(tensor: CompressedTensor) -> relax.Expr:
    """The tensor's decode; a matrix whose scales run along columns is stored transposed."""
    granularity = tensor.granularity
    if len(tensor.shape) != 2 or (
        isinstance(granularity, PerChannel | PerGroup)
        and granularity.axis % 2 == (1 if isinstance(granularity, PerGroup) else 0)
    ):
        return decode_call(tensor)
    if isinstance(granularity, PerGroup):
        granularity = PerGroup(granularity.size, 1)
    elif isinstance(granularity, PerChannel):
        granularity = PerChannel(0)
    scales, zeros = tensor.scales, tensor.zero_points
    flipped = CompressedTensor.from_codes(
        np.ascontiguousarray(tensor.codes().T),
        tensor.number_format,
        granularity,
        store_scales(scales.values().T, scales.storage),
        zero_points=None if zeros is None else np.ascontiguousarray(zeros.T),
    )
    return op.permute_dims(decode_call(flipped))


def _matmul_nbits(node: Node) -> Result:
    """``com.microsoft`` MatMulNBits: x [..., K] times a weight [N, K] of 2, 4 or 8 bits."""
    if node.has(4):
        raise node.refuse("MatMulNBits with group indices", "export it without act-order")
    weight, scales = node.known(1, "the weight"), node.known(2, "the scales")
    zeros = node.known(3, "the zero points") if node.has(3) else None
    if zeros is not None and zeros.dtype != np.uint8:
        raise node.refuse(f"MatMulNBits with zero points of {zeros.dtype}")
    n, k, bits, size = (node.int(name, 0) for name in ("N", "K", "bits", "block_size"))
    try:
        packed = MatMulNBits(
            n=n,
            k=k,
            bits=bits or 4,
            block_size=size,
            weight=weight,
            scales=scales.astype(np.float32).reshape(-1),
            zero_points=None if zeros is None else zeros.reshape(-1),
        )
        tensor = _narrow_scales(_signed(from_matmul_nbits(packed), zeros is None))
    except FewbitsError as error:
        raise node.error("invalid-node", error.message) from error
    product = op.matmul(node[0], op.permute_dims(decode_call(tensor)))
    return op.add(product, node[5]) if node.has(5) else product


FEW_BIT_CONVERTERS = {"com.microsoft:MatMulNBits": _matmul_nbits}
