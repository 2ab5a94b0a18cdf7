"""The second moments of a layer's inputs: all that the solvers know of the data.

A layer's squared output error is quadratic in its weights' errors, with this matrix, so inputs
need not be kept: they stream through, and memory is one matrix and one batch.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ...errors import FewbitsError

# Vectors multiplied at a time, which bounds the copies in the accumulator's type.
_CHUNK = 8192


class Hessian:
    """``H = (2 / N) sum x x^T`` over the N input vectors seen (spec 6).

    Attributes:
        columns: length of an input vector.
        samples: N, the number of vectors seen.
    """

    def __init__(
        self,
        columns: int,
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        """An accumulator in `dtype`, float32 or float64, without samples yet."""
        self.columns = columns
        self.samples = 0
        self._sum = torch.zeros(columns, columns, dtype=dtype, device=device)
        self._magnitudes = torch.zeros(columns, dtype=torch.float64, device=device)

    def add(self, x: Tensor) -> None:
        """Take in `x` ``[..., columns]``, any floating type.

        Raises:
            FewbitsError: ``bad-hessian`` where the length differs or a value is NaN or infinite;
                nothing is added then.
        """
        if x.ndim == 0 or x.shape[-1] != self.columns:
            raise FewbitsError(
                "bad-hessian", f"inputs of shape {tuple(x.shape)} for {self.columns} columns"
            )
        vectors = x.detach().reshape(-1, self.columns)
        if not bool(torch.isfinite(vectors).all()):
            raise FewbitsError(
                "bad-hessian", "an input of the layer is NaN or infinite",
                hint="check the calibration data and the layers before this one",
            )  # fmt: skip
        for part in vectors.split(_CHUNK):
            part = part.to(self._sum.device, self._sum.dtype)
            self._sum.addmm_(part.T, part)
            self._magnitudes += part.abs().sum(dim=0, dtype=torch.float64)
        self.samples += vectors.shape[0]

    @property
    def value(self) -> Tensor:
        """``[columns, columns]``, symmetric; a copy. Zeros before the first sample."""
        return self._sum * (2 / max(self.samples, 1))

    @property
    def column_norms(self) -> Tensor:
        """Euclidean norm of each input over all samples, ``[columns]``, for Wanda."""
        return self._sum.diagonal().clamp(min=0).sqrt()

    @property
    def absmean(self) -> Tensor:
        """Mean magnitude of each input, ``[columns]``."""
        return (self._magnitudes / max(self.samples, 1)).to(self._sum.dtype)
