"""Exact OBS and OBQ: one weight at a time, the cheapest first (spec 19, Frantar et al. 2022).

Where GPTQ fixes the order of columns for all rows, here every row chooses its own, and so has an
inverse Hessian of its own from which each finished weight is eliminated. Rows take their steps
together in batches. Eliminations wait as factors until a block of them is one matrix product, and
finished weights then leave the matrices, which shrinks a row's cost from ``2 n^3`` memory accesses
to about ``2/3 n^3`` multiplications in BLAS. All in float64.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import torch
from torch import Tensor

# Steps between two products with the waiting factors.
_BLOCK = 48
#: Bytes that the inverse Hessians of a batch of rows may take, twice.
ROW_MEMORY = 128 << 20


@dataclasses.dataclass(eq=False)
class RowState:
    """A batch of rows, each with the weights that are not finished.

    Attributes:
        rows: which rows of the matrix these are, ``[batch, 1]``.
        columns: original places of the unfinished weights, ``[batch, left]``.
        weights: their present values, float64.
        diagonal: of each row's inverse Hessian.
        open: False for those that finished in this block and are still in the arrays.
        finished: ``[batch, columns]``, in original places: values of finished weights.
    """

    rows: Tensor
    columns: Tensor
    weights: Tensor
    diagonal: Tensor
    open: Tensor
    finished: Tensor


#: What a step does: which weight of each row, ``[batch]``, and its final value, ``[batch]``.
Chooser = Callable[[RowState], tuple[Tensor, Tensor]]


def row_batches(rows: int, columns: int) -> list[range]:
    """Batches of rows whose inverse Hessians fit into `ROW_MEMORY`."""
    size = max(1, ROW_MEMORY // (8 * columns * columns))
    return [range(start, min(start + size, rows)) for start in range(0, rows, size)]


def eliminate(
    weight: Tensor, inverse: Tensor, batch: range, steps: int, choose: Chooser
) -> tuple[Tensor, Tensor, Tensor]:
    """Finish `steps` weights of each row of a batch, one after the other.

    A finished weight takes the value that `choose` gives it, and the others of its row move by
    ``-(w - value) / inv_pp * inv[:, p]``, which is their least squares answer.

    Args:
        weight: ``[rows, columns]``.
        inverse: the damped inverse Hessian, float64, ``[columns, columns]``.
        batch: which rows.
        steps: at most the number of columns.
        choose: see `Chooser`; called once per step.

    Returns:
        The rows after it, float64 ``[batch, columns]``; in which order weights were finished,
        ``[batch, steps]``; and what each step added to ``e H e^T / 2``.
    """
    count, columns = len(batch), weight.shape[1]
    device = weight.device
    state = RowState(
        rows=torch.arange(batch.start, batch.stop, device=device)[:, None],
        columns=torch.arange(columns, device=device).repeat(count, 1),
        weights=weight[batch.start : batch.stop].double(),
        diagonal=inverse.diagonal().repeat(count, 1),
        open=torch.ones(count, columns, dtype=torch.bool, device=device),
        finished=weight[batch.start : batch.stop].double(),
    )
    every = torch.arange(count, device=device)
    # All rows start with one inverse: no copies before the first block is over.
    matrices = inverse.expand(count, columns, columns)
    order = torch.empty(count, steps, dtype=torch.int64, device=device)
    losses = torch.empty(count, steps, dtype=torch.float64, device=device)
    for start in range(0, steps, _BLOCK):
        stop = min(start + _BLOCK, steps)
        waiting = inverse.new_empty(count, stop - start, state.columns.shape[1])
        for step in range(start, stop):
            done = waiting[:, : step - start]
            place, value = choose(state)
            column = matrices[every, place]
            if step > start:
                factors = done[every, :, place]
                column = column - torch.bmm(factors[:, None], done)[:, 0]
            pivot = column[every, place]
            error = state.weights[every, place] - value
            original = state.columns[every, place]
            order[:, step], losses[:, step] = original, error**2 / pivot / 2
            state.finished[every, original] = value
            state.weights -= column * (error / pivot)[:, None]
            waiting[:, step - start] = column / pivot.sqrt()[:, None]
            state.diagonal -= waiting[:, step - start] ** 2
            state.open[every, place] = False
        if stop < steps:
            matrices = _compact(state, matrices, waiting)
    left = state.columns[state.open].reshape(count, -1)
    state.finished.scatter_(1, left, state.weights[state.open].reshape(count, -1))
    return state.finished, order, losses


def _compact(state: RowState, matrices: Tensor, waiting: Tensor) -> Tensor:
    """Apply the waiting factors and drop the finished weights."""
    count = len(state.columns)
    left = state.open.nonzero()[:, 1].reshape(count, -1)
    size = left.shape[1]
    state.columns, state.weights = state.columns.gather(1, left), state.weights.gather(1, left)
    factors = waiting.gather(2, left[:, None].expand(-1, waiting.shape[1], -1))
    rows = torch.arange(count, device=left.device)[:, None, None]
    matrices = matrices[rows, left[:, :, None], left[:, None]]
    matrices.baddbmm_(factors.transpose(1, 2), factors, alpha=-1)
    # The matrix is the better source: the running diagonal has gathered rounding errors.
    state.diagonal = matrices.diagonal(dim1=1, dim2=2).clone()
    state.open = torch.ones(count, size, dtype=torch.bool, device=left.device)
    return matrices


def cheapest(state: RowState, cost: Tensor, allowed: Tensor | None = None) -> Tensor:
    """The open (and allowed) weight of least cost of each row; the first of equals."""
    possible = state.open if allowed is None else state.open & allowed
    return cost.masked_fill(~possible, torch.inf).argmin(dim=1)
