"""Exact OBS pruning: by row, then the whole matrix by what each row's next zero costs (spec 19)."""

from __future__ import annotations

import torch
from scipy.optimize import isotonic_regression
from torch import Tensor

from ...formats.sparsity import NofM
from .exact import Chooser, RowState, cheapest, eliminate, row_batches
from .masks import check_pattern, keep_largest, zeros_of


def prune_exact(
    weight: Tensor, inverse: Tensor, sparsity: float | NofM, dead: Tensor
) -> tuple[Tensor, Tensor]:
    """Prune one weight at a time, the one whose loss after all others made up for it is least.

    For a share of zeros every row is pruned to the end on paper; the rows' losses are then merged
    so that the matrix loses least, and the kept weights of each row are solved for in one go.

    Args:
        weight: ``[rows, columns]``.
        inverse: the damped inverse Hessian, float64.
        sparsity: share of zeros or n:m.
        dead: ``[columns]``: inputs that are always 0, pruned first.

    Returns:
        The pruned matrix, float64, and the mask of kept weights.
    """
    if isinstance(sparsity, NofM):
        return _prune_pattern(weight, inverse, sparsity, dead)
    order, losses = [], []
    for batch in row_batches(*weight.shape):
        _, places, steps = eliminate(weight, inverse, batch, weight.shape[1], _chooser(dead))
        order.append(places)
        losses.append(steps.masked_fill_(dead[places], -1))
    mask = _merge(torch.cat(order), torch.cat(losses), zeros_of(sparsity, weight.numel()))
    return refit(weight, inverse, mask), mask


def refit(weight: Tensor, inverse: Tensor, mask: Tensor) -> Tensor:
    """The kept weights' least squares answer to the others being 0, float64 ``[rows, columns]``."""
    result = weight.double()
    for row, kept in zip(result, mask, strict=True):
        pruned = (~kept).nonzero()[:, 0]
        if len(pruned):
            between = inverse[pruned]
            factor = torch.linalg.cholesky(between[:, pruned])
            row -= torch.cholesky_solve(row[pruned, None], factor)[:, 0] @ between
            row[pruned] = 0
    return result


def _chooser(dead: Tensor, pattern: NofM | None = None, rows: int = 0) -> Chooser:
    taken = torch.zeros(0)
    if pattern is not None:
        groups = len(dead) // pattern.m
        taken = torch.zeros(rows, groups, dtype=torch.int64, device=dead.device)

    def choose(state: RowState) -> tuple[Tensor, Tensor]:
        cost = state.weights**2 / state.diagonal
        cost = cost.masked_fill(dead[state.columns], -1)
        if pattern is None:
            place = cheapest(state, cost)
        else:
            group = state.columns // pattern.m
            place = cheapest(state, cost, taken.gather(1, group) < pattern.m - pattern.n)
            chosen = group.gather(1, place[:, None])
            taken.scatter_add_(1, chosen, torch.ones_like(chosen))
        return place, torch.zeros(len(place), dtype=torch.float64, device=place.device)

    return choose


def _prune_pattern(
    weight: Tensor, inverse: Tensor, pattern: NofM, dead: Tensor
) -> tuple[Tensor, Tensor]:
    check_pattern(pattern, weight.shape[1])
    steps = weight.shape[1] // pattern.m * (pattern.m - pattern.n)
    results, masks = [], []
    for batch in row_batches(*weight.shape):
        chooser = _chooser(dead, pattern, len(batch))
        solved, order, _ = eliminate(weight, inverse, batch, steps, chooser)
        mask = torch.ones(solved.shape, dtype=torch.bool, device=weight.device)
        masks.append(mask.scatter_(1, order, False))
        results.append(solved)
    return torch.cat(results), torch.cat(masks)


def _merge(order: Tensor, losses: Tensor, zeros: int) -> Tensor:
    """Mask that prunes a prefix of each row's `order`, `zeros` in all, at the least total loss.

    A row's losses need not rise. Pooled until they do (isotonic regression: the convex hull of
    their sums), the smallest ones of all rows are a prefix of every row.
    """
    pooled = torch.stack([
        torch.from_numpy(isotonic_regression(row).x.copy()) for row in losses.cpu().numpy()
    ])  # fmt: skip
    counts = (~keep_largest(pooled, zeros)).sum(dim=1).to(order.device)
    mask = torch.ones(order.shape, dtype=torch.bool, device=order.device)
    pruned = torch.arange(order.shape[1], device=order.device) < counts[:, None]
    rows = torch.arange(len(order), device=order.device)[:, None].expand_as(order)
    mask[rows[pruned], order[pruned]] = False
    return mask
