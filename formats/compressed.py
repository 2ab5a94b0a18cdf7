"""A compressed tensor: packed codes, scales, and everything needed to read and to weigh them."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import numpy.typing as npt

from ..errors import FewbitsError
from .base import Codes, NumberFormat
from .binary import BinaryCoding
from .granularity import Granularity
from .integer import Integer
from .packing import pack, packed_size, unpack
from .scales import StoredScales
from .sparsity import Dense, Mask, Sparsity

Shape = tuple[int, ...]


@dataclasses.dataclass(frozen=True, eq=False)
class CompressedTensor:
    """What a tensor is stored as; consistent by construction, or a `FewbitsError`.

    Attributes:
        number_format: meaning of a code.
        shape: of the tensor.
        granularity: which values share a scale.
        sparsity: which values are stored.
        packed: codes of the stored values in C order, packed low bits first.
        scales: of shape ``granularity.scale_shape(shape)``; binary coding has a last axis more,
            one scale per plane.
        zero_points: codes of the integers subtracted before scaling, one per scale; or None.
        offsets: float32 added after scaling, one per scale; or None. Only for binary coding.
        places: what the sparsity stores.
    """

    number_format: NumberFormat
    shape: Shape
    granularity: Granularity
    sparsity: Sparsity
    packed: npt.NDArray[np.uint8]
    scales: StoredScales
    zero_points: Codes | None = None
    offsets: npt.NDArray[np.float32] | None = None
    places: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        if any(size < 0 for size in self.shape):
            raise FewbitsError("bad-tensor", f"no tensor has the shape {self.shape}")
        scale_shape = self.granularity.scale_shape(self.shape)
        binary = isinstance(self.number_format, BinaryCoding)
        wanted = (*scale_shape, self.number_format.bits) if binary else scale_shape
        if self.scales.shape != wanted:
            raise FewbitsError(
                "bad-tensor", f"scales have the shape {self.scales.shape}, not {wanted}"
            )
        for extra in (self.zero_points, self.offsets):
            if extra is not None and extra.shape != scale_shape:
                raise FewbitsError("bad-tensor", f"zero points or offsets have {extra.shape}")
        if self.zero_points is not None and not isinstance(self.number_format, Integer):
            raise FewbitsError("bad-tensor", f"{self.number_format} takes no zero point")
        if self.offsets is not None and not binary:
            raise FewbitsError("bad-tensor", f"{self.number_format} takes no offset")
        if isinstance(self.sparsity, Dense) and self.packed.size != packed_size(
            self.size, self.number_format.bits
        ):
            raise FewbitsError("bad-tensor", f"codes do not fill the shape {self.shape}")

    @classmethod
    def from_codes(
        cls,
        codes: Codes,
        number_format: NumberFormat,
        granularity: Granularity,
        scales: StoredScales,
        *,
        sparsity: Sparsity | None = None,
        mask: Mask | None = None,
        zero_points: Codes | None = None,
        offsets: npt.NDArray[np.float32] | None = None,
    ) -> CompressedTensor:
        """Pack codes in the tensor's shape; with a sparsity, those that its complete `mask` keeps.

        For solvers, which find codes themselves; `compress` is for everybody else.
        """
        sparsity = sparsity or Dense()
        places: dict[str, np.ndarray] = {}
        kept = codes.reshape(-1)
        if not isinstance(sparsity, Dense):
            if mask is None or mask.shape != codes.shape:
                raise FewbitsError("bad-sparsity", f"{sparsity} needs a mask of the tensor's shape")
            places = sparsity.describe(mask)
            kept = codes[mask]
        packed = pack(kept, number_format.bits)
        return cls(
            number_format, codes.shape, granularity, sparsity, packed, scales,
            zero_points, offsets, places,
        )  # fmt: skip

    @property
    def size(self) -> int:
        """Number of values, stored or not."""
        return math.prod(self.shape)

    def mask(self) -> Mask:
        """Which values are stored."""
        return self.sparsity.restore(self.places, self.shape)

    def codes(self) -> Codes:
        """Codes in the tensor's shape, 0 where none is stored."""
        bits = self.number_format.bits
        if isinstance(self.sparsity, Dense):
            return unpack(self.packed, bits, self.size).reshape(self.shape)
        mask = self.mask()
        codes = np.zeros(self.shape, np.uint8)
        codes[mask] = unpack(self.packed, bits, int(mask.sum()))
        return codes

    def decode(self) -> npt.NDArray[np.float32]:
        """The tensor it stands for, float32; exactly 0 where nothing is stored."""
        rows = self.granularity.rows(self.codes())
        scales = self.scales.values()
        if isinstance(self.number_format, BinaryCoding):
            sums = self.number_format.sums(scales).reshape(rows.shape[0], -1)
            values = np.take_along_axis(sums, rows.astype(np.intp), axis=1)
            if self.offsets is not None:
                values = values + self.offsets.reshape(-1, 1).astype(np.float64)
        else:
            values = self.number_format.decode(rows)
            if self.zero_points is not None:
                values = values - self.number_format.decode(self.zero_points).reshape(-1, 1)
            values = values * scales.reshape(-1, 1)
        dense = self.granularity.from_rows(values.astype(np.float32), self.shape)
        if not isinstance(self.sparsity, Dense):
            dense = np.where(self.mask(), dense, np.float32(0))
        return np.ascontiguousarray(dense).reshape(self.shape)

    @property
    def code_bits(self) -> int:
        """Bits of the codes alone."""
        if isinstance(self.sparsity, Dense):
            return self.size * self.number_format.bits
        return int(self.mask().sum()) * self.number_format.bits

    @property
    def metadata_bits(self) -> int:
        """Bits of scales, zero points, offsets, sparsity and a table that has no name."""
        bits = self.scales.bits + self.number_format.table_bits
        if self.zero_points is not None:
            bits += self.zero_points.size * self.number_format.bits
        if self.offsets is not None:
            bits += 32 * self.offsets.size
        return bits + self.sparsity.metadata_bits(self.places, self.shape)

    @property
    def total_bits(self) -> int:
        """Codes and metadata."""
        return self.code_bits + self.metadata_bits

    @property
    def bits_per_value(self) -> float:
        """Total bits over the number of values, stored or not; 0 for an empty tensor."""
        return self.total_bits / self.size if self.size else 0.0
