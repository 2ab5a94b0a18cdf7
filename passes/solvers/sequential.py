"""GPTQ and SparseGPT: column by column, each error corrected by the columns that follow (spec 6).

One loop serves both: a weight is pruned, rounded, or both, and what it loses is spread over the
columns of its row that are not done yet, by the row of the inverse Hessian's factor. Rows are
independent and processed together; corrections beyond a block of columns wait for its end, when
they are one matrix product (Frantar & Alistarh 2023; Frantar et al. 2022).
"""

from __future__ import annotations

import torch
from torch import Tensor

from ...formats.sparsity import NofM
from .masks import check_pattern, keep_largest, keep_n_of_m, zeros_of
from .quantizer import Quantizer
from .threads import one_thread


def column_order(diagonal: Tensor, together: int = 1) -> Tensor:
    """Columns by falling second moment (GPTQ's activation order), `together` of them as one.

    Args:
        diagonal: of the Hessian, ``[columns]``.
        together: neighbours that stay neighbours, for n:m patterns; divides the columns.
    """
    groups = diagonal.reshape(-1, together)
    order = torch.argsort(groups.sum(dim=1), descending=True, stable=True)
    inside = torch.arange(together, device=diagonal.device)
    return (order[:, None] * together + inside).reshape(-1)


class Sweep:
    """One pass over the columns of a matrix.

    Memory beside the arguments: the matrix once more, its mask, and one block of errors.
    """

    def __init__(
        self,
        weight: Tensor,
        upper: Tensor,
        *,
        order: Tensor | None = None,
        quantizer: Quantizer | None = None,
        sparsity: float | NofM | None = None,
        dead: Tensor | None = None,
        block_columns: int = 128,
    ) -> None:
        """Prepare a sweep.

        Args:
            weight: ``[rows, columns]``; float32 or float64, in which the sweep computes.
            upper: U of `inverse_factor`, for columns in `order`.
            order: in which columns are done; with a quantizer whose groups wait, or n:m whose
                neighbours it tears apart, only the natural one is possible.
            quantizer: rounds what is kept.
            sparsity: share of zeros or n:m.
            dead: ``[columns]``: inputs that are always 0, pruned before any other.
            block_columns: columns per block.
        """
        rows, columns = weight.shape
        device = weight.device
        self._order = torch.arange(columns, device=device) if order is None else order
        # Columns as rows: each is contiguous.
        self._work = weight.T[self._order].clone()
        self._upper = upper.to(weight.dtype)
        self._pivots = self._upper.diagonal()
        self._quantizer = quantizer
        self._sparsity = sparsity
        self._dead = None if dead is None else dead[self._order]
        self._block = block_columns
        self._zeros: Tensor | None = None
        self._kept = torch.ones(columns, rows, dtype=torch.bool, device=device)
        self._errors = self._work[:0]
        self._start = self._stop = 0
        self._done = 0

    def run(self) -> tuple[Tensor, Tensor]:
        """The solved matrix as it decodes, and the mask of kept weights, both in natural order."""
        columns, rows = self._work.shape
        if isinstance(self._sparsity, NofM):
            check_pattern(self._sparsity, columns)
        order = self._order.tolist()
        pivots = self._pivots.tolist()
        for start in range(0, columns, self._block):
            self._start, self._stop = start, min(start + self._block, columns)
            self._errors = self._work.new_zeros(self._stop - start, rows)
            if isinstance(self._sparsity, float):
                self._choose_share(self._sparsity)
            with one_thread():
                for position in range(start, self._stop):
                    self._done = position
                    self._column(position, order[position], pivots[position])
            self._done = self._stop
            rest = self._upper[start : self._stop, self._stop :]
            self._work[self._stop :].addmm_(rest.T, self._errors, alpha=-1)
        weight, mask = torch.empty_like(self._work), torch.empty_like(self._kept)
        weight[self._order], mask[self._order] = self._work, self._kept
        return weight.T.contiguous(), mask.T.contiguous()

    def _column(self, position: int, column: int, pivot: float) -> None:
        quantizer, sparsity = self._quantizer, self._sparsity
        if quantizer is not None and quantizer.group and column % quantizer.group == 0:
            stop = min(position + quantizer.group, len(self._work))
            quantizer.begin(column, self._current(position, stop).T.float().contiguous())
        if isinstance(sparsity, NofM) and position % sparsity.m == 0:
            self._choose_pattern(position, sparsity)
        old = self._work[position]
        new = old if quantizer is None else quantizer.round_column(column, old).to(old.dtype)
        if sparsity is not None:
            new = new * self._kept[position]
        error = (old - new) / pivot
        self._errors[position - self._start] = error
        self._work[position] = new
        row = self._upper[position, position + 1 : self._stop]
        self._work[position + 1 : self._stop].addr_(row, error, alpha=-1)

    def _current(self, start: int, stop: int) -> Tensor:
        """Columns as all errors so far have left them, also those beyond the block."""
        inside = self._work[start : min(stop, self._stop)]
        if stop <= self._stop:
            return inside
        done = self._done - self._start
        waiting = self._upper[self._start : self._done, self._stop : stop]
        beyond = self._work[self._stop : stop] - waiting.T @ self._errors[:done]
        return torch.cat([inside, beyond])

    def _scores(self, start: int, stop: int) -> Tensor:
        """What pruning each weight costs, ``[columns, rows]``; below 0 for dead inputs."""
        scores = (self._current(start, stop) / self._pivots[start:stop, None]) ** 2
        if self._dead is not None:
            scores[self._dead[start:stop]] = -1
        return scores

    def _choose_share(self, share: float) -> None:
        """The block's mask: its own scores as they are now, its zeros by those of the matrix.

        The published loop gives every block the same share; columns of unequal worth want
        unequal shares.
        """
        if self._zeros is None:
            scores = self._scores(0, len(self._work))
            pruned = ~keep_largest(scores, zeros_of(share, scores.numel()))
            self._zeros = pruned.sum(dim=1)
        block = slice(self._start, self._stop)
        zeros = int(self._zeros[block].sum())
        self._kept[block] = keep_largest(self._scores(self._start, self._stop), zeros)

    def _choose_pattern(self, position: int, pattern: NofM) -> None:
        scores = self._scores(position, position + pattern.m)
        self._kept[position : position + pattern.m] = keep_n_of_m(scores.T, pattern).T
