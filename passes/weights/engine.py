"""Layer by layer through the already compressed model: what all weight-compressing passes share.

For each layer in program order: look for a finished solution, or accumulate the moments of the
inputs that it really gets and solve; then let the calibration samples go on through the new
weight. Only one layer's weight, moments and solution are held at a time.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from tvm import ir

from ...errors import FewbitsError
from ...formats.plain import PlainTensor, PlainType, StoredTensor
from ..base import PassContext
from ..cache import SOLVER_VERSION, SolutionCache, data_key, key_of, module_key
from ..layers import Layer, Replacement, replace_layers
from ..sequential import Sweep
from ..solvers.hessian import Hessian
from ..solvers.masks import default_storage
from ..solvers.options import SolverOptions
from ..solvers.retarget import retarget
from ..solvers.solution import Solution, layer_loss
from ..solvers.solve import solve
from .shape import as_layer, stack

#: Bits of a weight that nothing was done to.
_FLOAT_BITS = 32


@dataclasses.dataclass(frozen=True)
class Task:
    """What is to become of one layer.

    Attributes:
        layer: of the module.
        candidates: how to solve it; of several the one with the least loss is kept (ANT).
        plain: what values are stored as where no number format is asked for.
        compensate: aim at the float model's outputs instead of the layer's own (see `retarget`).
    """

    layer: Layer
    candidates: tuple[SolverOptions, ...]
    plain: PlainType = "float32"
    compensate: bool = False

    @property
    def needs_data(self) -> bool:
        """Whether a candidate looks at the layer's inputs."""
        return self.compensate or any(
            c.second_order or c.solver == "wanda" for c in self.candidates
        )


def compress_layers(
    pass_name: str, module: ir.IRModule, tasks: Sequence[Task], context: PassContext
) -> ir.IRModule:
    """The module with the layers compressed; a note says what became of each.

    Args:
        pass_name: for notes.
        module: in program order, as the tasks.
        tasks: what is to be done.
        context: calibration data, cache, progress, device.

    Raises:
        FewbitsError: ``no-calibration``; what makes a layer's options impossible, with its name.
    """
    # The ids that are looked up in a table are the same in every module.
    tasks = [
        dataclasses.replace(task, compensate=False) if task.layer.kind == "embedding" else task
        for task in tasks
    ]
    reference = any(task.compensate for task in tasks)
    sweep = Sweep(module, context.calibration, device=context.device, reference=reference)
    keys = _Keys(pass_name, module, tasks, context)
    found: dict[str, StoredTensor] = {}
    for number, task in enumerate(tasks):
        name = task.layer.name
        if context.progress is not None:
            context.progress(name, number, len(tasks))
        layer = dataclasses.replace(task.layer)  # its weight goes with it
        with at(layer):
            stored, facts = keys.look_up(task, functools.partial(_solve, task, layer, sweep))
        for sentence in facts["notes"]:
            context.note(pass_name, name, sentence)
        if stored.total_bits >= _FLOAT_BITS * stored.size:
            reason = f"{stored.total_bits / stored.size:.3g} bits a weight are no gain"
            context.note(pass_name, name, f"stays float: {reason}")
            continue
        _report(pass_name, name, stored, facts, context)
        found[name] = stored
        sweep.replace(layer, stored)

    def replace(layer: Layer) -> Replacement | None:
        stored = found.get(layer.name)
        return None if stored is None else Replacement(as_layer(stored, layer))

    return replace_layers(module, replace)


@contextmanager
def at(layer: Layer) -> Iterator[None]:
    """Errors inside name the layer."""
    try:
        yield
    except FewbitsError as error:
        if error.where is not None:
            raise
        raise FewbitsError(error.code, error.message, where=layer.name, hint=error.hint) from error


class _Keys:
    """The cache as this run sees it: each layer's key holds those of all layers before it."""

    def __init__(
        self, pass_name: str, module: ir.IRModule, tasks: Sequence[Task], context: PassContext
    ) -> None:
        self._pass_name = pass_name
        self._context = context
        self._cache = None
        calibration = context.calibration
        if context.cache is not None and calibration and any(t.needs_data for t in tasks):
            self._cache = SolutionCache(context.cache)
            self._chain = key_of(
                str(SOLVER_VERSION),
                context.device,
                module_key(module),
                data_key(calibration.batches()),
            )

    def look_up(
        self, task: Task, solve_it: Callable[[], tuple[StoredTensor, dict[str, Any]]]
    ) -> tuple[StoredTensor, dict[str, Any]]:
        """The finished solution of a layer, or a new one, which is kept."""
        if self._cache is None:
            return solve_it()
        self._chain = key_of(self._chain, task.layer.name, repr(task.candidates), task.plain,
                             str(task.compensate))  # fmt: skip
        if not task.needs_data:  # faster than reading
            return solve_it()
        try:
            entry = self._cache.get(self._chain)
        except FewbitsError as error:
            entry = None
            self._context.note(
                self._pass_name, task.layer.name, f"a damaged cache entry was ignored: {error}"
            )
        if entry is None:
            entry = solve_it()
            self._cache.put(self._chain, *entry)
        return entry


def _solve(task: Task, layer: Layer, sweep: Sweep) -> tuple[StoredTensor, dict[str, Any]]:
    """The stored weight as a matrix, and what is known about it."""
    moments = sweep.moments(layer) if task.needs_data else None
    weight = torch.from_numpy(np.array(layer.matrix, np.float32)).to(sweep.device)
    if task.compensate:
        assert moments is not None
        groups = zip(weight.chunk(len(moments)), sweep.drift(layer), moments, strict=True)
        weight = torch.cat([retarget(part, drift, m.value) for part, drift, m in groups])
    best: tuple[StoredTensor, list[Solution]] | None = None
    losses: dict[str, float] = {}
    for options in task.candidates:
        stored, solutions = _solve_one(weight, moments, options, task.plain)
        loss = sum(solution.loss for solution in solutions)
        losses[str(options.number_format)] = loss
        if best is None or loss < sum(solution.loss for solution in best[1]):
            best = stored, solutions
    assert best is not None
    stored, solutions = best
    rows = weight.split(weight.shape[0] // len(solutions))
    of_group = [None] * len(rows) if moments is None else [m.value for m in moments]
    signal = sum(
        layer_loss(part, torch.zeros_like(part), m) for part, m in zip(rows, of_group, strict=True)
    )
    facts: dict[str, Any] = {
        "loss": sum(solution.loss for solution in solutions),
        "signal": signal,
        "of": "weights" if moments is None else "outputs",
        "notes": list(dict.fromkeys(note for s in solutions for note in s.notes)),
    }
    if len(losses) > 1:
        facts["losses"] = losses
    return stored, facts


def _solve_one(
    weight: torch.Tensor,
    moments: list[Hessian] | None,
    options: SolverOptions,
    plain: PlainType,
) -> tuple[StoredTensor, list[Solution]]:
    """One candidate; the groups of a convolution are solved one by one."""
    if moments is None:
        parts: list[tuple[torch.Tensor, Hessian | None]] = [(weight, None)]
    else:
        parts = list(zip(weight.split(weight.shape[0] // len(moments)), moments, strict=True))
    solutions = [solve(part, hessian, options) for part, hessian in parts]
    return stack([_stored(solution, options, plain) for solution in solutions]), solutions


def _stored(solution: Solution, options: SolverOptions, plain: PlainType) -> StoredTensor:
    if solution.tensor is not None:
        return solution.tensor
    assert solution.mask is not None and options.sparsity is not None
    storage = options.sparsity_storage
    if storage is None:
        storage = default_storage(options.sparsity, solution.weight.shape[1])
    mask = solution.mask.cpu().numpy()
    return PlainTensor.from_array(solution.weight.cpu().numpy(), plain, storage, mask)


def _report(
    pass_name: str, name: str, stored: StoredTensor, facts: dict[str, Any], context: PassContext
) -> None:
    kind = stored.dtype if isinstance(stored, PlainTensor) else stored.number_format.name
    data: dict[str, Any] = {
        "format": kind,
        "sparsity": stored.sparsity.name,
        "code_bits": stored.code_bits,
        "total_bits": stored.total_bits,
        "loss": facts["loss"],
        "sqnr_db": _decibels(facts["signal"], facts["loss"]),
        "sqnr_of": facts["of"],
    }
    if not isinstance(stored, PlainTensor):
        data["granularity"] = str(stored.granularity)
    if "losses" in facts:
        data["losses"] = facts["losses"]
    quality = data["sqnr_db"]
    told = "exact" if quality is None else f"{facts['of']} {quality:.1f} dB above the error"
    context.note(pass_name, name, f"{kind}, {stored.bits_per_value:.3g} bits a weight, {told}",
                 **data)  # fmt: skip


def _decibels(signal: float, error: float) -> float | None:
    """Ratio in dB to two digits; None where there is no error or no signal."""
    return round(10 * float(np.log10(signal / error)), 2) if signal > 0 and error > 0 else None
