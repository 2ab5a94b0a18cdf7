"""Rounding once more, each weight as the others are now: coordinate descent on the layer's loss.

AdaRound (Nagel et al. 2020) learns which way to round by descending the layer's quadratic loss with
relaxed variables. The same loss has an exact step for a single weight, so this descends over the
levels themselves: no relaxation, no learning rate, never uphill, and not bound to the two levels
beside the original. It starts where GPTQ or SparseGPT
ended. On MiniLM its loss is below that of relaxed AdaRound, of GPTQ and of OBQ (benchmarks).
"""

from __future__ import annotations

from torch import Tensor

from .quantizer import Quantizer
from .threads import one_thread


def descend(
    weight: Tensor,
    start: Tensor,
    hessian: Tensor,
    quantizer: Quantizer,
    *,
    mask: Tensor | None = None,
    sweeps: int = 10,
    block_columns: int = 128,
) -> Tensor:
    """Lower ``tr(D H D^T)`` by rounding columns again and again, until no weight changes.

    Args:
        weight: ``[rows, columns]``, the target.
        start: a matrix of levels of `quantizer`.
        hessian: damped, so that no diagonal value is 0.
        quantizer: with all its scales.
        mask: weights to keep; the others are 0 and stay so.
        sweeps: over all columns, at most.
        block_columns: columns after which corrections go to all others.

    Returns:
        The matrix as it decodes, float32; its loss is at most that of `start`.
    """
    moments = hessian.to(weight.dtype)
    values = start.T.clone()
    gradient = moments @ (values - weight.T)
    for _ in range(sweeps):
        changed = 0
        for first in range(0, len(values), block_columns):
            last = min(first + block_columns, len(values))
            before = values[first:last].clone()
            inside = gradient[first:last].clone()
            with one_thread():
                for column in range(first, last):
                    place = column - first
                    target = values[column] - inside[place] / moments[column, column]
                    new = quantizer.round_column(column, target)
                    if mask is not None:
                        new = new * mask[:, column]
                    inside.addr_(moments[first:last, column], new - values[column])
                    values[column] = new
            moved = values[first:last] - before
            changed += int((moved != 0).sum())
            gradient.addmm_(moments[:, first:last], moved)
        if not changed:
            break
    return values.T.contiguous()
