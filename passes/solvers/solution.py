"""What a solver returns, and by what it is judged."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from ...formats.compressed import CompressedTensor

# Rows whose errors are multiplied at a time, which bounds the float64 copies.
_ROWS = 1024


@dataclasses.dataclass(eq=False)
class Solution:
    """One solved matrix.

    Attributes:
        tensor: what is stored; None where only pruning was asked for.
        weight: ``[rows, columns]`` float32, what `tensor` decodes to.
        mask: which weights are kept, bool; None without a sparsity.
        loss: see `layer_loss`; of `weight`, with the undamped Hessian.
        notes: what a user should know, in sentences.
    """

    tensor: CompressedTensor | None
    weight: Tensor
    mask: Tensor | None
    loss: float
    notes: list[str] = dataclasses.field(default_factory=list)


def layer_loss(weight: Tensor, approximation: Tensor, hessian: Tensor | None) -> float:
    """``tr(D H D^T) / 2`` with ``D = weight - approximation``, in float64.

    With ``H = (2/N) sum x x^T`` it is the squared error of the layer's outputs, summed over the
    outputs and averaged over the calibration vectors. Without a Hessian inputs count as
    independent with unit variance: the squared error of the weights.
    """
    moments = None if hessian is None else hessian.double()
    total = 0.0
    for start in range(0, len(weight), _ROWS):
        part = slice(start, start + _ROWS)
        error = weight[part].double() - approximation[part].double()
        spread = error * 2 if moments is None else error @ moments
        total += float(torch.sum(spread * error)) / 2
    # Rounding may leave a tiny negative number where the error is in the null space.
    return max(total, 0.0)
