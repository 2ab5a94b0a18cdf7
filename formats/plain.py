"""A pruned tensor whose kept values stay floats: the values one by one, and their places.

`CompressedTensor` holds codes of at most 8 bits with scales. A weight that is only pruned has
neither; it shares the sparsity, its places and the exact count of bits with the compressed ones.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Literal, TypeAlias

import ml_dtypes
import numpy as np
import numpy.typing as npt

from ..errors import FewbitsError, nearest
from .compressed import CompressedTensor
from .sparsity import Dense, Mask, Sparsity

PlainType = Literal["float32", "float16", "bfloat16"]
_DTYPES: dict[str, np.dtype] = {
    "float32": np.dtype(np.float32),
    "float16": np.dtype(np.float16),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
}
PLAIN_TYPES = tuple(_DTYPES)


@dataclasses.dataclass(frozen=True, eq=False)
class PlainTensor:
    """Floats of a tensor, or of some of its places; the rest is 0.

    Attributes:
        dtype: what each value is stored as.
        shape: of the tensor.
        sparsity: which values are stored.
        values: the stored ones in C order, of that dtype.
        places: what the sparsity stores.
    """

    dtype: PlainType
    shape: tuple[int, ...]
    sparsity: Sparsity
    values: np.ndarray
    places: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        if any(size < 0 for size in self.shape):
            raise FewbitsError("bad-tensor", f"no tensor has the shape {self.shape}")
        if self.values.ndim != 1 or self.values.dtype != plain_dtype(self.dtype):
            raise FewbitsError("bad-tensor", f"values are not a vector of {self.dtype}")
        if self.values.size != int(self.mask().sum()):
            raise FewbitsError("bad-tensor", f"values do not fill the shape {self.shape}")

    @classmethod
    def from_array(
        cls,
        array: npt.ArrayLike,
        dtype: PlainType = "float32",
        sparsity: Sparsity | None = None,
        mask: Mask | None = None,
    ) -> PlainTensor:
        """Store an array, each value rounded to `dtype`.

        Args:
            array: finite reals of any shape.
            dtype: what each value is stored as.
            sparsity: which values are stored; all by default.
            mask: the values to keep, shape of `array`; by default those that are not 0.

        Raises:
            FewbitsError: ``not-a-number``; ``scale-overflow`` for values beyond `dtype`;
                ``bad-sparsity`` from the sparsity.
        """
        full = np.asarray(array, np.float32)
        if not np.isfinite(full).all():
            raise FewbitsError("not-a-number", "the tensor has NaN or infinite values")
        sparsity = sparsity or Dense()
        kept = sparsity.complete(full != 0 if mask is None else mask)
        if mask is not None:
            full = np.where(mask, full, np.float32(0))
        with np.errstate(over="ignore"):
            values = full[kept].astype(plain_dtype(dtype))
        if not np.isfinite(values.astype(np.float32)).all():
            raise FewbitsError(
                "scale-overflow", f"a value of {float(np.abs(full).max()):.3g} exceeds {dtype}",
                hint="store the values as float32 or bfloat16",
            )  # fmt: skip
        return cls(dtype, full.shape, sparsity, values, sparsity.describe(kept))

    @property
    def size(self) -> int:
        """Number of values, stored or not."""
        return math.prod(self.shape)

    def mask(self) -> Mask:
        """Which values are stored."""
        return self.sparsity.restore(self.places, self.shape)

    def decode(self) -> npt.NDArray[np.float32]:
        """The tensor it stands for, float32; exactly 0 where nothing is stored."""
        dense = np.zeros(self.shape, np.float32)
        dense[self.mask()] = self.values.astype(np.float32)
        return dense

    @property
    def code_bits(self) -> int:
        """Bits of the values alone."""
        return 8 * self.values.nbytes

    @property
    def metadata_bits(self) -> int:
        """Bits of the sparsity."""
        return self.sparsity.metadata_bits(self.places, self.shape)

    @property
    def total_bits(self) -> int:
        """Values and metadata."""
        return self.code_bits + self.metadata_bits

    @property
    def bits_per_value(self) -> float:
        """Total bits over the number of values, stored or not; 0 for an empty tensor."""
        return self.total_bits / self.size if self.size else 0.0


#: A weight as it is stored, whichever way.
StoredTensor: TypeAlias = CompressedTensor | PlainTensor


def plain_dtype(name: str) -> np.dtype:
    """The numpy type of that name.

    Raises:
        FewbitsError: ``bad-tensor``.
    """
    if name not in _DTYPES:
        raise FewbitsError(
            "bad-tensor", f"values are not stored as {name!r}", hint=nearest(name, _DTYPES)
        )
    return _DTYPES[name]
