"""The weight layout of onnxruntime's MatMulNBits (``com.microsoft``).

The weight is ``[N, K]`` (transposed, as of a linear layer) in unsigned integers with a zero point,
in blocks along K; each block starts on its own byte and a short last one is filled up.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt

from ..errors import FewbitsError
from .base import Codes
from .compressed import CompressedTensor
from .granularity import PerGroup
from .integer import Integer
from .packing import pack, packed_size, unpack
from .scales import store_scales
from .sparsity import Dense

_BITS = (2, 4, 8)


@dataclasses.dataclass(frozen=True, eq=False)
class MatMulNBits:
    """Attributes and inputs of the operator.

    Attributes:
        n, k, bits, block_size: the operator's attributes.
        weight: uint8 ``[n, blocks, block_size * bits / 8]``, input ``B``.
        scales: float32 ``[n * blocks]``.
        zero_points: uint8 ``[n * ceil(blocks * bits / 8)]``, each row filled up to a byte; or None
            for ``2**(bits-1)``.
    """

    n: int
    k: int
    bits: int
    block_size: int
    weight: npt.NDArray[np.uint8]
    scales: npt.NDArray[np.float32]
    zero_points: npt.NDArray[np.uint8] | None

    @property
    def blocks(self) -> int:
        """Blocks of a row."""
        return -(-self.k // self.block_size)


def to_matmul_nbits(tensor: CompressedTensor) -> MatMulNBits:
    """The operator's inputs for a dense ``[N, K]`` integer tensor in groups along K.

    Signed codes become unsigned by moving the zero point, so the values stay exactly the same.

    Raises:
        FewbitsError: ``no-onnx-layout`` where the operator cannot hold the tensor.
    """
    integer, granularity = tensor.number_format, tensor.granularity
    if (
        not isinstance(integer, Integer)
        or integer.bits not in _BITS
        or len(tensor.shape) != 2
        or not isinstance(granularity, PerGroup)
        or granularity.axis not in (1, -1)
        or not isinstance(tensor.sparsity, Dense)
    ):
        raise FewbitsError(
            "no-onnx-layout",
            f"MatMulNBits holds dense [N, K] integers of 2, 4 or 8 bits in groups along K, "
            f"not {integer} {tensor.granularity} {tensor.sparsity} of shape {tensor.shape}",
        )
    _check_block(granularity.size)
    half = np.uint8(1 << (integer.bits - 1))
    flip = half if integer.signed else np.uint8(0)
    rows = granularity.rows(tensor.codes() ^ flip)
    n, k = tensor.shape
    scales = tensor.scales.values()
    weight = pack(rows, integer.bits).reshape(*scales.shape, granularity.size * integer.bits // 8)
    zero_points = None
    if tensor.zero_points is not None or not integer.signed:
        zeros = np.zeros(scales.shape, np.uint8) if tensor.zero_points is None else (
            tensor.zero_points ^ flip
        )  # fmt: skip
        zero_points = _rowwise_pack(zeros, integer.bits)
    return MatMulNBits(
        n, k, integer.bits, granularity.size, weight, scales.reshape(-1), zero_points
    )


def from_matmul_nbits(operator: MatMulNBits) -> CompressedTensor:
    """The tensor ``[N, K]`` that the operator multiplies by, as unsigned integers.

    Raises:
        FewbitsError: ``bad-packing`` or ``bad-tensor`` where sizes disagree with the attributes.
    """
    _check_block(operator.block_size)
    if operator.bits not in _BITS or operator.n < 0 or operator.k < 0:
        raise FewbitsError("no-onnx-layout", f"no MatMulNBits has {operator.bits} bits")
    integer = Integer(operator.bits, signed=False)
    granularity = PerGroup(operator.block_size)
    grid = (operator.n, operator.blocks)
    codes = unpack(
        operator.weight.reshape(-1), operator.bits, grid[0] * grid[1] * operator.block_size
    )
    if operator.scales.size != grid[0] * grid[1]:
        raise FewbitsError("bad-tensor", f"{operator.scales.size} scales for {grid} blocks")
    if operator.zero_points is None:
        zeros = np.full(grid, 1 << (operator.bits - 1), np.uint8)
    else:
        zeros = _rowwise_unpack(operator.zero_points, operator.bits, grid)
    return CompressedTensor.from_codes(
        granularity.from_rows(codes.reshape(-1, operator.block_size), (operator.n, operator.k)),
        integer, granularity, store_scales(operator.scales.reshape(grid)), zero_points=zeros,
    )  # fmt: skip


def _rowwise_pack(codes: Codes, bits: int) -> npt.NDArray[np.uint8]:
    per_byte = 8 // bits
    padding = -codes.shape[1] % per_byte
    return pack(np.pad(codes, ((0, 0), (0, padding))), bits)


def _rowwise_unpack(packed: npt.NDArray[np.uint8], bits: int, grid: tuple[int, int]) -> Codes:
    per_row = packed_size(grid[1], bits) * 8 // bits
    return unpack(packed.reshape(-1), bits, grid[0] * per_row).reshape(grid[0], per_row)[
        :, : grid[1]
    ]


def _check_block(size: int) -> None:
    if size < 16 or size & (size - 1):
        raise FewbitsError(
            "no-onnx-layout", f"MatMulNBits needs groups of 16, 32, 64, ..., not {size}"
        )
