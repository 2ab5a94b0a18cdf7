"""Uniform affine integers: ``x ≈ scale * (code - zero_point)`` (spec 0.1, Jacob et al. 2018)."""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt


@dataclasses.dataclass(frozen=True)
class AffineFormat:
    """A signed integer grid of `bits` bits.

    Attributes:
        bits: 2 to 8 (16 for wide activations).
        symmetric: the zero point is 0.
        narrow: the most negative code is not used, as for weights.
    """

    bits: int = 8
    symmetric: bool = False
    narrow: bool = False

    @property
    def minimum(self) -> int:
        """Smallest code."""
        return -(2 ** (self.bits - 1)) + (1 if self.narrow else 0)

    @property
    def maximum(self) -> int:
        """Largest code."""
        return 2 ** (self.bits - 1) - 1

    def parameters(self, low: float, high: float) -> AffineParameters:
        """Scale and zero point that cover the reals from `low` to `high`.

        The range is widened to hold 0, which must be exact for padding. A range of width 0 gets
        scale 1.
        """
        if self.symmetric:
            largest = max(-float(low), float(high), 0.0)
            return AffineParameters(float(_usable(np.array(largest / self.maximum))), 0)
        scale, zero_point = cover(low, high, self.minimum, self.maximum)
        return AffineParameters(float(scale), int(zero_point))

    def encode(
        self, x: np.ndarray, scale: np.ndarray | np.generic, zero_point: np.ndarray | int
    ) -> np.ndarray:
        """Codes of `x`, rounded half to even and saturated; scale and zero point broadcast."""
        steps = np.rint(np.asarray(x, np.float32) / np.asarray(scale, np.float32)) + zero_point
        dtype = np.int8 if self.bits <= 8 else np.int16
        return np.clip(steps, self.minimum, self.maximum).astype(dtype)


@dataclasses.dataclass(frozen=True)
class AffineParameters:
    """What the codes of one tensor mean."""

    scale: float
    zero_point: int


def cover(
    low: npt.ArrayLike, high: npt.ArrayLike, minimum: int, maximum: int
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """Scales and zero points with which codes `minimum` to `maximum` cover `low` to `high` and 0.

    `low` and `high` may have any shape, one range per element; the results have that shape.
    """
    low = np.minimum(np.asarray(low, np.float64), 0.0)
    high = np.maximum(np.asarray(high, np.float64), 0.0)
    scale = _usable((high - low) / (maximum - minimum))
    zero_point = np.rint(minimum - low / scale.astype(np.float64)).astype(np.int64)
    return scale, np.clip(zero_point, minimum, maximum)


def _usable(scale: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
    """float32 scales, 1 where one is zero or so small that its reciprocal overflows."""
    rounded = np.asarray(scale, np.float32)
    return np.where(rounded > np.finfo(np.float32).tiny, rounded, np.float32(1))
