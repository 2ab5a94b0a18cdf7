"""The inverse Hessian as a triangle: damped until it exists, with a note on what that took.

With ``inv(H) = U^T U`` and U upper triangular, row i of U over ``U[i, i]`` is the correction of all
later columns for an error in column i, given that the earlier ones are done (spec 6). Its
factorization is therefore all that the sequential solvers need.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from ...errors import FewbitsError

# A pivot this small against its diagonal is rounding noise: the matrix has no full rank.
_NO_PIVOT = 1e-6
_FIRST_DAMPING, _LAST_DAMPING = 1e-6, 1.0


@dataclasses.dataclass(frozen=True, eq=False)
class Factor:
    """The factor and how it came about.

    Attributes:
        upper: U, float64 ``[n, n]``, rows and columns in the order asked for.
        damping: share of the mean diagonal that was added.
        notes: what a user should know, in sentences.
    """

    upper: Tensor
    damping: float
    notes: tuple[str, ...]

    def inverse(self) -> Tensor:
        """The damped inverse Hessian, float64."""
        return self.upper.T @ self.upper


def check_hessian(hessian: Tensor, columns: int) -> None:
    """Refuse what is no matrix of second moments of so many inputs (``bad-hessian``)."""
    if hessian.shape != (columns, columns):
        raise FewbitsError(
            "bad-hessian", f"a Hessian of shape {tuple(hessian.shape)} for {columns} columns"
        )
    if not bool(torch.isfinite(hessian).all()) or bool((hessian.diagonal() < 0).any()):
        raise FewbitsError(
            "bad-hessian", "the Hessian has NaN, infinite, or negative diagonal values",
            hint="check the calibration data and the layers before this one",
        )  # fmt: skip


def dead_columns(hessian: Tensor) -> Tensor:
    """Inputs that were 0 in every sample, ``[n]`` bool: their weights do not matter."""
    return hessian.diagonal() == 0


def damp(hessian: Tensor, damping: float) -> Tensor:
    """``hessian + damping * mean(diagonal) * I``, float64, with that mean for dead inputs.

    The mean is that of the inputs that are not always 0; 1 where all are.
    """
    matrix = hessian.to(torch.float64, copy=True)
    dead = dead_columns(matrix)
    diagonal = matrix.diagonal()
    mean = diagonal[~dead].mean() if not bool(dead.all()) else diagonal.new_tensor(1.0)
    diagonal[dead] = mean
    diagonal += damping * mean
    return matrix


def inverse_factor(hessian: Tensor, damping: float, order: Tensor | None = None) -> Factor:
    """Factor the inverse of ``hessian + damping * mean(diagonal) * I``.

    Dead inputs get the mean of the others as their diagonal, so that nothing divides by zero and
    they take no part in anything. Where the matrix does not factor, damping grows tenfold, up to
    the whole mean. Memory: three float64 matrices.

    Args:
        hessian: ``[n, n]``, symmetric, checked by `check_hessian`.
        damping: share of the mean diagonal, 0 to 1.
        order: permutation of the columns.

    Raises:
        FewbitsError: ``bad-hessian`` where no damping helps, as the matrix is not symmetric or
            far from positive semidefinite.
    """
    matrix = hessian.to(torch.float64)
    if order is not None:
        matrix = matrix[order][:, order]
    # In reversed order a lower triangle is an upper one, and its inverse is what is wanted.
    matrix = matrix.flip(0, 1)
    dead = dead_columns(matrix)
    notes = []
    if bool(dead.any()):
        notes.append(f"{int(dead.sum())} of {dead.numel()} inputs are 0 in all calibration data")
    if _has_no_full_rank(damp(matrix, 0.0)):
        notes.append(
            "the calibration data do not span the inputs: the Hessian is singular and only damping "
            "makes it invertible; more data would help"
        )
    used = damping
    while True:
        lower, failed = torch.linalg.cholesky_ex(damp(matrix, used))
        if not int(failed) and bool(torch.isfinite(lower).all()):
            break
        if used >= _LAST_DAMPING:
            raise FewbitsError(
                "bad-hessian", "the Hessian is not positive semidefinite: no damping helps",
                hint="it is the sum of x x^T over the inputs; check how it was made",
            )  # fmt: skip
        used = min(max(10 * used, _FIRST_DAMPING), _LAST_DAMPING)
    if used != damping:
        notes.append(f"the Hessian did not factor with damping {damping:g}; {used:g} was needed")
    unit = torch.eye(len(matrix), dtype=torch.float64, device=matrix.device)
    inverse = torch.linalg.solve_triangular(lower, unit, upper=False)
    return Factor(inverse.flip(0, 1), used, tuple(notes))


def _has_no_full_rank(matrix: Tensor) -> bool:
    lower, failed = torch.linalg.cholesky_ex(matrix)
    return bool(int(failed)) or bool((lower.diagonal() ** 2 < _NO_PIVOT * matrix.diagonal()).any())
