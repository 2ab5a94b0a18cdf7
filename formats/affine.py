"""Uniform affine integers: ``x ≈ scale * (code - zero_point)`` (spec 0.1, Jacob et al. 2018)."""

from __future__ import annotations

import dataclasses

import numpy as np


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
        low, high = min(float(low), 0.0), max(float(high), 0.0)
        if self.symmetric:
            largest = max(-low, high)
            scale = np.float32(largest / self.maximum)
            return AffineParameters(_usable(scale), 0)
        scale = _usable(np.float32((high - low) / (self.maximum - self.minimum)))
        zero_point = int(np.rint(self.minimum - low / scale))
        return AffineParameters(scale, int(np.clip(zero_point, self.minimum, self.maximum)))

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


def _usable(scale: np.float32) -> float:
    """The scale, or 1 where it is zero or so small that its reciprocal overflows."""
    return float(scale) if scale > np.finfo(np.float32).tiny else 1.0
