"""OBQ: exact quantization, one weight at a time, the one that loses least first (spec 19)."""

from __future__ import annotations

import torch
from torch import Tensor

from .exact import Chooser, RowState, cheapest, eliminate, row_batches
from .quantizer import Quantizer


def quantize_exact(
    weight: Tensor, inverse: Tensor, quantizer: Quantizer, mask: Tensor | None = None
) -> Tensor:
    """Round one weight of each row at a time; the others make up for its error.

    A weight that the corrections of others have pushed out of the format's reach by more than half
    a step is taken at once, the worst first: later it could only get worse.

    Args:
        weight: ``[rows, columns]``; before pruning, where there is a `mask`.
        inverse: the damped inverse Hessian, float64.
        quantizer: with all its scales.
        mask: weights to keep; the others become 0 before anything is rounded.

    Returns:
        The matrix as it decodes, float64.
    """
    results = []
    for batch in row_batches(*weight.shape):
        kept = None if mask is None else mask[batch.start : batch.stop]
        chooser = _chooser(quantizer, kept)
        results.append(eliminate(weight, inverse, batch, weight.shape[1], chooser)[0])
    return torch.cat(results)


def _chooser(quantizer: Quantizer, kept: Tensor | None) -> Chooser:
    def choose(state: RowState) -> tuple[Tensor, Tensor]:
        rounded = quantizer.round(state.rows, state.columns, state.weights).double()
        clipped = quantizer.clipping(state.rows, state.columns, state.weights)
        cost = (state.weights - rounded) ** 2 / state.diagonal
        cost = torch.where(clipped > 0, -clipped, cost)
        if kept is not None:
            pruned = ~kept.gather(1, state.columns)
            rounded, cost = rounded.masked_fill(pruned, 0), cost.masked_fill(pruned, -torch.inf)
        place = cheapest(state, cost)
        return place, rounded.gather(1, place[:, None])[:, 0]

    return choose
