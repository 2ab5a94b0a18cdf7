"""Which weights become zero, given what each is worth: exact shares and exact n:m patterns."""

from __future__ import annotations

import torch
from torch import Tensor

from ...errors import FewbitsError
from ...formats.sparsity import Bitmap, NofM, Rows, Sparsity
from ...formats.vectors import Vectors


def zeros_of(share: float, size: int) -> int:
    """How many of `size` values a share of zeros means."""
    return round(share * size)


def keep_largest(scores: Tensor, zeros: int) -> Tensor:
    """Mask of the shape of `scores`: all but the `zeros` smallest; the first of equals go."""
    flat = scores.reshape(-1)
    mask = torch.ones(flat.numel(), dtype=torch.bool, device=scores.device)
    mask[torch.argsort(flat, stable=True)[:zeros]] = False
    return mask.reshape(scores.shape)


def keep_n_of_m(scores: Tensor, pattern: NofM) -> Tensor:
    """Mask of ``[rows, columns]``: in every `m` neighbours the `n` with the largest scores.

    Raises:
        FewbitsError: ``bad-sparsity`` where `m` does not divide the columns.
    """
    check_pattern(pattern, scores.shape[1])
    groups = scores.reshape(-1, pattern.m)
    order = torch.argsort(groups, dim=1, stable=True)
    mask = torch.ones_like(groups, dtype=torch.bool)
    mask.scatter_(1, order[:, : pattern.m - pattern.n], False)
    return mask.reshape(scores.shape)


def project(weight: Tensor, pattern: NofM) -> Tensor:
    """The nearest matrix with the pattern: the largest magnitudes of each group (spec 15)."""
    return weight * keep_n_of_m(weight.abs(), pattern)


def keep_vectors(scores: Tensor, pattern: Vectors) -> Tensor:
    """Mask of ``[rows, columns]``: all but the vectors with the smallest sums of squares."""
    assert pattern.share is not None
    rows, columns = scores.shape
    filled = torch.nn.functional.pad(scores, (0, 0, 0, -rows % pattern.length))
    worth = filled.reshape(-1, pattern.length, columns).square().sum(1)
    kept = keep_largest(worth, zeros_of(pattern.share, worth.numel()))
    return kept.repeat_interleave(pattern.length, 0)[:rows]


def keep(scores: Tensor, sparsity: float | NofM | Vectors, *, by_row: bool = False) -> Tensor:
    """Mask of ``[rows, columns]``: n:m, vectors, or a share of zeros, of each row if `by_row`."""
    if isinstance(sparsity, Vectors):
        return keep_vectors(scores, sparsity)
    if isinstance(sparsity, NofM):
        return keep_n_of_m(scores, sparsity)
    if by_row:
        zeros = zeros_of(sparsity, scores.shape[1])
        order = torch.argsort(scores, dim=1, stable=True)
        mask = torch.ones_like(scores, dtype=torch.bool)
        return mask.scatter_(1, order[:, :zeros], False)
    return keep_largest(scores, zeros_of(sparsity, scores.numel()))


def check_pattern(pattern: NofM, columns: int) -> None:
    """Refuse columns that do not divide into groups of `m` (``bad-sparsity``)."""
    if columns % pattern.m:
        raise FewbitsError(
            "bad-sparsity", f"{pattern} needs columns that {pattern.m} divides, not {columns}",
            hint="leave this layer out, or take a share of zeros",
        )  # fmt: skip


def default_storage(sparsity: float | NofM | Vectors, columns: int) -> Sparsity:
    """n:m as its places, vectors as their columns; a share as a bitmap, or as row indices where
    these are fewer bits."""
    if isinstance(sparsity, NofM):
        return sparsity
    if isinstance(sparsity, Vectors):
        return Vectors(sparsity.length)
    index_bits = 16 if columns <= 1 << 16 else 32
    return Rows() if (1 - sparsity) * index_bits + 32 / max(columns, 1) < 1 else Bitmap()
