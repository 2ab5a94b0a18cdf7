"""How a product's weight lies in the GPU's memory."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True)
class Array:
    """One array of a stored weight: a parameter of every kernel that reads it."""

    name: str
    shape: tuple[int, ...]
    dtype: str


class WeightFormat(abc.ABC):
    """A layout. All kernels of one product share it, so a weight is stored once."""

    @property
    @abc.abstractmethod
    def key(self) -> str:
        """Text that equal layouts share."""

    @abc.abstractmethod
    def arrays(self, outputs: int, inputs: int) -> tuple[Array, ...]:
        """The kernel's parameters for a weight [outputs, inputs]."""

    @abc.abstractmethod
    def pack(self, weight: Any) -> Sequence[np.ndarray]:
        """The arrays' contents; what `weight` is, the layout says."""

    @abc.abstractmethod
    def decoded(self, arrays: Sequence[np.ndarray], outputs: int, inputs: int) -> np.ndarray:
        """float64 [outputs, inputs]: what packed arrays mean. Tests compare kernels with it."""


@dataclasses.dataclass(frozen=True)
class Dense(WeightFormat):
    """The matrix itself, [N, K] row by row, in the dtype of the activations.

    `pack` takes an array [N, K] of that dtype (FP8 and bfloat16 as ml_dtypes has them).
    """

    dtype: str

    @property
    def key(self) -> str:
        """``dense-int8``."""
        return f"dense-{self.dtype}"

    def arrays(self, outputs: int, inputs: int) -> tuple[Array, ...]:
        """One: the matrix."""
        return (Array("weight", (outputs, inputs), self.dtype),)

    def pack(self, weight: Any) -> Sequence[np.ndarray]:
        """The matrix as it is."""
        return (np.ascontiguousarray(weight),)

    def decoded(self, arrays: Sequence[np.ndarray], outputs: int, inputs: int) -> np.ndarray:
        """The matrix as float64."""
        return arrays[0].reshape(outputs, inputs).astype(np.float64)
