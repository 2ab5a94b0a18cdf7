"""A weight that also makes up for what compression did to its inputs.

A layer behind compressed layers gets other inputs than in the float model. The weights whose
products with *these* inputs are closest to the float model's outputs are not the original ones, and
a solver that approximates them corrects errors of the layers before (the asymmetric calibration of
GPTAQ, Li et al. 2025, here solved for once per layer, so that it serves every solver).
"""

from __future__ import annotations

import torch
from torch import Tensor

from .factor import damp

#: Share of the Hessian's mean diagonal that holds the new weights near the original ones. More
#: than solvers need: the drift of a few thousand vectors is fitted as readily as any noise.
DAMPING = 0.1


def retarget(weight: Tensor, drift: Tensor, hessian: Tensor, damping: float = DAMPING) -> Tensor:
    """The least squares answer ``W + W drift inv(H)``, damped.

    Args:
        weight: ``[rows, columns]``, of the float model.
        drift: ``(2 / N) sum (x_float - x) x^T`` over the layer's inputs, ``[columns, columns]``.
        hessian: second moments of the inputs x.
        damping: pulls towards `weight`; a share of the Hessian's mean diagonal.

    Returns:
        ``[rows, columns]`` in the type of `weight`.
    """
    factor = torch.linalg.cholesky(damp(hessian, damping))
    correction = torch.cholesky_solve((weight.double() @ drift.double()).T, factor).T
    return (weight.double() + correction).to(weight.dtype)
