"""How ONNX lays out few-bit tensors: element types, and blocked QuantizeLinear (opset 21 on).

Only bytes and numbers, so that this floor needs no onnx: ``raw_data`` of a ``TensorProto`` and the
element type's number. 4-bit types put the first element in the low nibble, which is our packing.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import numpy.typing as npt

from ..errors import FewbitsError
from .base import Codes, NumberFormat
from .compressed import CompressedTensor
from .granularity import Granularity, PerChannel, PerGroup, PerTensor
from .integer import Integer
from .packing import pack, unpack
from .parse import parse_format
from .scales import store_scales
from .sparsity import Dense

# Format name -> TensorProto.DataType.
_TYPES = {
    "uint8": 2, "int8": 3, "fp8_e4m3fn": 17, "fp8_e4m3fnuz": 18, "fp8_e5m2": 19,
    "fp8_e5m2fnuz": 20, "uint4": 21, "int4": 22, "fp4_e2m1": 23, "uint2": 25, "int2": 26,
}  # fmt: skip
_NAMES = {number: name for name, number in _TYPES.items()}


def element_type(number_format: NumberFormat) -> int:
    """ONNX's number of the element type with the format's codes.

    Narrow integers are stored as their full type.

    Raises:
        FewbitsError: ``no-onnx-type`` where ONNX has none.
    """
    name = number_format.name.removesuffix("-narrow").removesuffix("-overflow")
    if name not in _TYPES:
        raise FewbitsError(
            "no-onnx-type", f"ONNX has no element type for {number_format}",
            hint=f"it has {', '.join(_TYPES)}; others go to a safetensors file",
        )  # fmt: skip
    return _TYPES[name]


def from_element_type(number: int) -> NumberFormat:
    """The format of ONNX's element type of this number; ``no-onnx-type`` if it is none of ours."""
    if number not in _NAMES:
        raise FewbitsError("no-onnx-type", f"element type {number} is no few-bit type")
    return parse_format(_NAMES[number])


def read_raw(number: int, raw: bytes, shape: tuple[int, ...]) -> Codes:
    """Codes in `shape` from the ``raw_data`` of a tensor of element type `number`.

    Raises:
        FewbitsError: ``bad-packing`` where the bytes are not those of that many elements.
    """
    bits = from_element_type(number).bits
    return unpack(np.frombuffer(raw, np.uint8), bits, math.prod(shape)).reshape(shape)


@dataclasses.dataclass(frozen=True, eq=False)
class LinearLayout:
    """Inputs and attributes of a DequantizeLinear that stands for a compressed tensor.

    Attributes:
        element_type: of the quantized tensor and its zero point.
        shape: of the quantized tensor.
        raw: its ``raw_data``.
        scales: float32 of ONNX's shape: scalar, ``[channels]``, or the tensor's with blocks on
            `axis`.
        zero_points: ``raw_data`` of the zero points, shaped as the scales; or None.
        axis: attribute; 0 where it means nothing.
        block_size: attribute; 0 when not blocked.
    """

    element_type: int
    shape: tuple[int, ...]
    raw: bytes
    scales: npt.NDArray[np.float32]
    zero_points: bytes | None
    axis: int
    block_size: int


def to_linear(tensor: CompressedTensor) -> LinearLayout:
    """The DequantizeLinear of a dense tensor with scales per tensor, channel or group.

    Raises:
        FewbitsError: ``no-onnx-type``, or ``no-onnx-layout`` for another granularity or sparsity.
    """
    axis, block = 0, 0
    if isinstance(tensor.granularity, PerChannel):
        axis = tensor.granularity.axis % len(tensor.shape)
    elif isinstance(tensor.granularity, PerGroup):
        axis, block = tensor.granularity.axis % len(tensor.shape), tensor.granularity.size
    elif not isinstance(tensor.granularity, PerTensor):
        raise FewbitsError("no-onnx-layout", f"ONNX has no scales per {tensor.granularity}")
    if not isinstance(tensor.sparsity, Dense):
        raise FewbitsError("no-onnx-layout", "DequantizeLinear is dense")
    bits, zero_points = tensor.number_format.bits, None
    if tensor.zero_points is not None:
        zero_points = pack(tensor.zero_points, bits).tobytes()
    return LinearLayout(
        element_type(tensor.number_format),
        tensor.shape,
        tensor.packed.tobytes(),
        tensor.scales.values(),
        zero_points,
        axis,
        block,
    )


def from_linear(layout: LinearLayout) -> CompressedTensor:
    """The compressed tensor that a DequantizeLinear's inputs stand for, scales in float32.

    Raises:
        FewbitsError: ``no-onnx-type``, ``bad-packing``, ``bad-tensor`` where sizes disagree,
            ``no-onnx-layout`` for float types with zero points other than 0.
    """
    number_format = from_element_type(layout.element_type)
    granularity: Granularity = PerTensor()
    scales = layout.scales
    if layout.block_size:
        granularity = PerGroup(layout.block_size, layout.axis)
    elif scales.size > 1 or (scales.ndim == 1 and len(layout.shape) > 1):
        granularity = PerChannel(layout.axis)
    if isinstance(granularity, PerTensor):
        scales = scales.reshape(())
    zero_points = None
    if layout.zero_points is not None:
        zero_points = read_raw(layout.element_type, layout.zero_points, scales.shape)
        if not isinstance(number_format, Integer):
            if number_format.decode(zero_points).any():
                raise FewbitsError("no-onnx-layout", f"a zero point that is not 0 in {layout}")
            zero_points = None
    return CompressedTensor.from_codes(
        read_raw(layout.element_type, layout.raw, layout.shape),
        number_format, granularity, store_scales(scales), zero_points=zero_points,
    )  # fmt: skip
