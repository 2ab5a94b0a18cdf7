"""One matrix in, its compressed form out: which steps each solver takes."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ...errors import FewbitsError
from ...formats.binary import BinaryCoding
from ...formats.compress import Method, compress
from ...formats.sparsity import Dense, NofM, Sparsity
from ...formats.vectors import Vectors
from .descent import descend
from .factor import check_hessian, damp, dead_columns, inverse_factor
from .hessian import Hessian
from .masks import default_storage, keep
from .options import SolverOptions
from .prune_exact import prune_exact
from .quantize_exact import quantize_exact
from .quantizer import Quantizer
from .sequential import Sweep, column_order
from .solution import Solution, layer_loss


def solve(
    weight: Tensor,
    hessian: Hessian | Tensor | None,
    options: SolverOptions,
    *,
    column_norms: Tensor | None = None,
) -> Solution:
    """Compress one weight matrix.

    Args:
        weight: ``[rows, columns]``, finite; computed in float32, on its device.
        hessian: second moments of the inputs, ``[columns, columns]`` (see `Hessian`), on the same
            device; not needed by ``rtn``, ``mse``, ``magnitude`` and ``wanda``.
        options: what to do.
        column_norms: ``[columns]``, up to a factor, for Wanda; from the Hessian where None.

    Raises:
        FewbitsError: ``not-a-number``, ``empty-tensor``: of the weights. ``calibration-needed``:
            no Hessian, or one without samples. ``bad-hessian``. ``bad-sparsity``,
            ``bad-granularity``, ``unsigned-format``, ``scale-overflow``: options that do not fit
            this matrix.
    """
    weight = weight.detach().float()
    _check_weight(weight)
    notes: list[str] = []
    if isinstance(hessian, Hessian):
        notes += _few_samples(hessian)
        if column_norms is None and hessian.samples:
            column_norms = hessian.column_norms
        hessian = hessian.value if hessian.samples else None
    if hessian is not None:
        check_hessian(hessian, weight.shape[1])
        if column_norms is None:
            column_norms = hessian.diagonal().clamp(min=0).sqrt()
    elif options.second_order:
        raise FewbitsError(
            "calibration-needed", f"{options.solver} needs a Hessian, that is calibration data",
            hint="give calibration data, or take the solver rtn, mse or magnitude",
        )  # fmt: skip
    if options.solver in ("rtn", "mse", "magnitude", "wanda"):
        solution = _direct(weight, hessian, column_norms, options)
    elif options.solver in ("obs", "obq"):
        assert hessian is not None
        solution = _exact(weight, hessian, options)
    else:
        assert hessian is not None
        solution = _sequential(weight, hessian, options)
    solution.notes[:0] = notes
    return solution


def _check_weight(weight: Tensor) -> None:
    if weight.ndim != 2 or not weight.numel():
        raise FewbitsError(
            "empty-tensor", f"solvers take a matrix with values, not shape {tuple(weight.shape)}"
        )
    wrong = int((~torch.isfinite(weight)).sum())
    if wrong:
        raise FewbitsError(
            "not-a-number", f"{wrong} weights are NaN or infinite",
            hint="check the weights: usually a failed training or export",
        )  # fmt: skip


def _few_samples(hessian: Hessian) -> list[str]:
    if 0 < hessian.samples < hessian.columns:
        return [
            f"{hessian.samples} calibration vectors for {hessian.columns} inputs: too few for a "
            "Hessian of full rank"
        ]
    return []


def _importance(weight: Tensor, hessian: Tensor | None, damping: float) -> Tensor:
    """Of each column's squared errors, ``[columns]``, never all 0."""
    if hessian is None:
        return torch.ones(weight.shape[1], device=weight.device)
    diagonal = hessian.diagonal().float()
    mean = diagonal.mean()
    if not float(mean) > 0:
        return torch.ones_like(diagonal)
    return diagonal / mean + max(damping, 1e-6)


def _direct(
    weight: Tensor, hessian: Tensor | None, column_norms: Tensor | None, options: SolverOptions
) -> Solution:
    """Round to nearest, and the baselines of pruning: no weight answers for another."""
    mask = None
    if options.solver == "magnitude":
        assert options.sparsity is not None
        mask = keep(weight.abs(), options.sparsity)
    elif options.solver == "wanda":
        assert options.sparsity is not None
        if column_norms is None:
            raise FewbitsError(
                "calibration-needed", "wanda needs the norms of the inputs",
                hint="give calibration data, or take the solver magnitude",
            )  # fmt: skip
        scores = weight.abs() * column_norms.to(weight)
        mask = keep(scores, options.sparsity, by_row=True)
    if options.number_format is None:
        assert mask is not None
        pruned = weight * mask
        return Solution(None, pruned, mask, layer_loss(weight, pruned, hessian))
    importance = _importance(weight, hessian, options.damping)
    if not options.symmetric and options.searches_scales:
        # `compress` knows no search for both scale and zero point.
        quantizer = Quantizer(weight, options, importance, dynamic=False)
        rows = torch.arange(weight.shape[0], device=weight.device)[:, None]
        columns = torch.arange(weight.shape[1], device=weight.device)
        rounded = quantizer.round(rows, columns, weight)
        return _stored(weight, rounded, mask, hessian, quantizer, [])
    storage = _storage(options, weight.shape[1])
    kept = None if mask is None else mask.cpu().numpy()
    values = weight.cpu().numpy()
    tensor = compress(
        values if kept is None or not isinstance(storage, Dense) else values * kept,
        options.number_format,
        granularity=options.granularity,
        sparsity=storage,
        mask=None if isinstance(storage, Dense) else kept,
        scale_storage=options.scale_storage,
        method=_method(options),
        importance=np.broadcast_to(importance.cpu().numpy(), values.shape),
    )
    decoded = torch.from_numpy(tensor.decode()).to(weight.device)
    return Solution(tensor, decoded, mask, layer_loss(weight, decoded, hessian))


def _method(options: SolverOptions) -> Method:
    if isinstance(options.number_format, BinaryCoding):
        return "alternating"
    if not options.symmetric:
        return "affine"
    return "mse" if options.searches_scales else "absmax"


def _storage(options: SolverOptions, columns: int) -> Sparsity:
    if options.sparsity is None:
        return Dense()
    return options.sparsity_storage or default_storage(options.sparsity, columns)


def _sequential(weight: Tensor, hessian: Tensor, options: SolverOptions) -> Solution:
    order = None
    if options.activation_order:
        together = options.sparsity.m if isinstance(options.sparsity, NofM) else 1
        order = column_order(hessian.diagonal(), together)
    factor = inverse_factor(hessian, options.damping, order)
    quantizer = None
    if options.number_format is not None:
        importance = _importance(weight, hessian, options.damping)
        quantizer = Quantizer(weight, options, importance, dynamic=order is None)
    assert not isinstance(options.sparsity, Vectors)  # the options refuse it
    sweep = Sweep(
        weight,
        factor.upper,
        order=order,
        quantizer=quantizer,
        sparsity=options.sparsity,
        dead=dead_columns(hessian),
        block_columns=options.block_columns,
    )
    solved, kept = sweep.run()
    mask = None if options.sparsity is None else kept
    notes = list(factor.notes)
    if options.solver == "descent" and quantizer is not None:
        damped = damp(hessian, factor.damping)
        solved = descend(
            weight, solved, damped, quantizer, mask=mask, block_columns=options.block_columns
        )
    return _stored(weight, solved, mask, hessian, quantizer, notes)


def _exact(weight: Tensor, hessian: Tensor, options: SolverOptions) -> Solution:
    factor = inverse_factor(hessian, options.damping)
    inverse = factor.inverse()
    solved, mask, quantizer = weight, None, None
    assert not isinstance(options.sparsity, Vectors)  # the options refuse it
    if options.sparsity is not None:
        solved, mask = prune_exact(weight, inverse, options.sparsity, dead_columns(hessian))
    if options.number_format is not None:
        importance = _importance(weight, hessian, options.damping)
        quantizer = Quantizer(solved.float(), options, importance, dynamic=False)
        solved = quantize_exact(weight, inverse, quantizer, mask)
    return _stored(weight, solved.float(), mask, hessian, quantizer, list(factor.notes))


def _stored(
    weight: Tensor,
    solved: Tensor,
    mask: Tensor | None,
    hessian: Tensor | None,
    quantizer: Quantizer | None,
    notes: list[str],
) -> Solution:
    """The solution in its stored form, judged by what that decodes to."""
    tensor = None
    if quantizer is not None:
        storage = _storage(quantizer.options, weight.shape[1])
        full = None if mask is None else storage.complete(mask.cpu().numpy())
        tensor = quantizer.finish(solved, storage, full)
        solved = torch.from_numpy(tensor.decode()).to(weight.device)
    return Solution(tensor, solved, mask, layer_loss(weight, solved, hessian), notes)
