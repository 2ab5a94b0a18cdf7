"""One forward pass over calibration data in which layers change as they are reached.

Solvers want the inputs that a layer really gets: those that the layers before it compute after
they were compressed. Instead of running the model once per layer, a `Sweep` keeps all samples at
one place of the program and moves it on, so calibration costs one forward pass in all, and none
of it beyond the last layer that asks for data.

    sweep = Sweep(module, calibration)
    for layer in find_layers(module):
        moments = sweep.moments(layer)           # of the layer's inputs, one per group
        sweep.replace(layer, compressed(layer.weight, moments))

Layers that read the same value (query, key and value of an attention) share their moments. On
request the samples also go through the module as it was, side by side, and `Sweep.drift` says how
far a layer's inputs are from those.
"""

from __future__ import annotations

import bisect
import dataclasses
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tvm import ir, relax

from ..errors import FewbitsError
from ..ops.evaluate import Environment, Evaluator, Step
from .calibration import Calibration
from .layers import Layer, find_layers
from .padding import Padding, without_padding
from .patches import geometry, patches
from .rewrite import constant, variables
from .solvers.hessian import Hessian
from .spilling import Spill, on_device

#: Bytes of values between two bindings that stay in memory.
BUDGET = 1 << 30


@dataclasses.dataclass(frozen=True)
class _Place:
    """What a layer's moments depend on: the value it reads and how it reads it."""

    source: relax.Expr
    reading: str


class Sweep:
    """All calibration samples at one place of a module that moves on.

    Args:
        module: as described in docs/architecture.md.
        calibration: the samples; None where no layer asks for moments.
        device: where to compute, ``"cpu"`` or ``"cuda"``.
        budget: bytes of values that stay in memory; what is more waits in temporary files.
        folder: of these files; None for the system's.
        reference: samples also go through the module as it was, for `drift`: twice the time and
            values.
    """

    def __init__(
        self,
        module: ir.IRModule,
        calibration: Calibration | None,
        *,
        device: str = "cpu",
        budget: int = BUDGET,
        folder: str | Path | None = None,
        reference: bool = False,
    ) -> None:
        self._reference: Sweep | None = None
        if reference:
            budget //= 2
            self._reference = Sweep(
                module, calibration, device=device, budget=budget, folder=folder
            )
        self.calibration = calibration
        self.device = device
        self._module = module
        self._layers = {layer.var.name: layer for layer in find_layers(module)}
        self._spill = Spill(budget, folder)
        self._replaced: dict[str, Any] = {}
        self._moments: dict[_Place, list[Hessian]] = {}
        self._drift: dict[_Place, list[torch.Tensor]] = {}
        self._environments: list[Environment] | None = None
        self._next = 0

    @property
    def spilled(self) -> int:
        """Bytes that were written to temporary files."""
        return self._spill.written

    def replace(self, layer: Layer, weight: Any) -> None:
        """From here on the layer computes with another weight.

        Args:
            layer: of the module, not before the place that the sweep has reached.
            weight: float32 of the layer's shape, or an object whose ``decode()`` gives it.
        """
        self._replaced[layer.var.name] = weight

    def moments(self, layer: Layer) -> list[Hessian]:
        """Second moments of what the layer multiplies, as the layers before it are now.

        Padded tokens, which an attention mask hides, are left out.

        Returns:
            One per group of a convolution, in order; one for a matrix product. Columns are the
            columns of ``layer.matrix``.

        Raises:
            FewbitsError: ``no-calibration``; ``not-finite`` where an input of the layer is NaN or
                infinite on the data; ``unsupported-form`` for embeddings, which multiply nothing.
        """
        if layer.kind == "embedding":
            raise FewbitsError(
                "unsupported-form",
                "a table that is looked up in has no inputs to calibrate with",
                where=layer.name,
                hint="take solver rtn or mse for embeddings",
            )
        place = _place(layer)
        if place not in self._moments:
            with torch.no_grad():
                self._run_to(layer)
                self._moments[place] = self._observe(layer)
        return self._moments[place]

    def drift(self, layer: Layer) -> list[torch.Tensor]:
        """How the layer's inputs x differ from those in the module as it was.

        Needs ``reference=True``.

        Returns:
            ``(2 / N) sum (x_float - x) x^T`` over the same N vectors as `moments`, one per group.

        Raises:
            FewbitsError: as `moments`.
        """
        moments = self.moments(layer)
        place, reference = _place(layer), self._reference
        assert reference is not None
        if place not in self._drift:
            with torch.no_grad():
                reference._run_to(layer)
                sums = [torch.zeros_like(m.value) for m in moments]
                for now, then in zip(self._vectors(layer), reference._vectors(layer), strict=True):
                    for total, x, original in zip(sums, now, then, strict=True):
                        rows = x.reshape(-1, x.shape[-1])
                        total.addmm_((original.reshape(rows.shape) - rows).T, rows)
            scales = [2 / max(m.samples, 1) for m in moments]
            self._drift[place] = [t * s for t, s in zip(sums, scales, strict=True)]
        return self._drift[place]

    def _start(self) -> list[Environment]:
        if self.calibration is None:
            raise FewbitsError(
                "no-calibration",
                "this solver needs sample inputs",
                hint="give --calibration data.npz (keys are input names), or take solver rtn, "
                "which needs none",
            )
        self._evaluator = Evaluator(self._module, self.device)
        steps = self._evaluator.steps
        self._index = {step.var.name: number for number, step in enumerate(steps)}
        self._uses: dict[relax.Var, list[int]] = {}
        for number, step in enumerate(steps):
            for var in variables(step.value):
                self._uses.setdefault(var, []).append(number)
        started = [self._evaluator.start(piece) for piece in self.calibration.pieces()]
        padding = Padding(self._module)
        self._kept = [padding.of(self._evaluator, environment) for environment in started]
        return started

    def _run_to(self, layer: Layer) -> None:
        """Compute everything before the layer's own binding."""
        if self._environments is None:
            self._environments = self._start()
        stop = self._index[layer.var.name]
        if stop < self._next:
            raise FewbitsError("internal", "a sweep does not go back", where=layer.name)
        for step in self._evaluator.steps[self._next : stop]:
            new = self._changed(step)
            grown = 0
            for environment in self._environments:
                grown += _bytes(self._run(step, new, environment))
                if grown > self._spill.budget // 4:
                    grown = 0
                    self._spill.balance(self._environments, self._needed)
            self._next += 1
            self._spill.balance(self._environments, self._needed)
            for place in [place for place in self._moments if place.source in step.last]:
                del self._moments[place]
                self._drift.pop(place, None)

    def _run(self, step: Step, new: relax.Call | None, environment: Environment) -> Any:
        if self.device != "cpu":
            for var in variables(step.value):
                if var in environment.values:
                    environment.values[var] = on_device(environment.values[var], self.device)
        if new is None:
            result = self._evaluator.run_step(step, environment)
        else:
            result = self._evaluator.evaluate(new, environment, step.run)
            sampled = any(var in environment.values for var in variables(new))
            (environment.values if sampled else environment.shared)[step.var] = result
        self._evaluator.release(step, environment)
        return result

    def _changed(self, step: Step) -> relax.Call | None:
        """What a layer computes with its new weight, or None where it has none."""
        layer = self._layers.get(step.var.name)
        weight = self._replaced.pop(step.var.name, None)
        if weight is None or layer is None:
            return None
        array = np.asarray(weight.decode() if hasattr(weight, "decode") else weight, np.float32)
        array = array.reshape(layer.shape)
        held = constant(array.T if layer.kind == "linear" else array)
        first = [held, layer.input] if layer.kind == "embedding" else [layer.input, held]
        call = layer.call
        new = relax.Call(call.op, [*first, *call.args[2:]], call.attrs, call.ty_args)
        return relax.BlockBuilder().normalize(new)

    def _needed(self, var: relax.Var) -> int:
        """The step that reads the variable next."""
        uses = self._uses.get(var, [])
        place = bisect.bisect_left(uses, self._next)
        return uses[place] if place < len(uses) else len(self._evaluator.steps)

    def _observe(self, layer: Layer) -> list[Hessian]:
        columns = math.prod(layer.shape[1:])
        found = [Hessian(columns, device=self.device) for _ in range(layer.groups)]
        for groups in self._vectors(layer):
            for hessian, vectors in zip(found, groups, strict=True):
                try:
                    hessian.add(vectors)
                except FewbitsError as error:
                    raise FewbitsError(
                        "not-finite",
                        "the layer's input becomes NaN or infinite on the calibration data",
                        where=layer.name,
                        hint="check that the data is preprocessed as in training, or put the "
                        "layer on the list `ignore`",
                    ) from error
        return found

    def _vectors(self, layer: Layer) -> Iterator[Sequence[torch.Tensor]]:
        """What the layer multiplies, piece by piece; an entry ``[..., columns]`` per group."""
        assert self._environments is not None
        for environment, kept in zip(self._environments, self._kept, strict=True):
            value = on_device(self._evaluator.evaluate(layer.input, environment), self.device)
            if layer.kind == "linear":
                yield [without_padding(value, kept)]
            else:
                yield from patches(layer, value)


def _place(layer: Layer) -> _Place:
    return _Place(layer.input, "" if layer.kind == "linear" else geometry(layer))


def _bytes(value: Any) -> int:
    if isinstance(value, tuple):
        return sum(map(_bytes, value))
    return value.nbytes if isinstance(value, torch.Tensor) else 0
