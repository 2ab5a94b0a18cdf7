"""Which layers suffer from quantization: each one alone, and everything but each one."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np

from .options import Options
from .progress import Progress, quiet

if TYPE_CHECKING:
    from tvm import ir

    from ..formats.affine import AffineParameters
    from ..passes.calibration import Calibration
    from ..passes.quantize.plan import Plan
    from ..passes.quantize.quantize import Quantize


@dataclasses.dataclass(frozen=True)
class Entry:
    """One layer.

    Attributes:
        name, operator: of the layer.
        alone_db: SNR of the model's outputs with only this layer quantized.
        without_db: SNR with everything quantized but this layer.
        weights: number of its weights.
    """

    name: str
    operator: str
    alone_db: float
    without_db: float
    weights: int


@dataclasses.dataclass(frozen=True)
class Sensitivity:
    """The ranking, most damaged first; `all_db` is the SNR with everything quantized."""

    entries: tuple[Entry, ...]
    all_db: float
    samples: int

    def as_dict(self) -> dict[str, Any]:
        """Plain data."""
        return dataclasses.asdict(self)


def rank_layers(
    model: Any, options: Options, calibration: Any, progress: Progress = quiet
) -> Sensitivity:
    """Quantize each multiply-accumulate layer alone and rank by the damage to the outputs.

    Args:
        model: as for `compile`.
        options: recipe, observer, seed.
        calibration: sample inputs; the damage is measured on the same.

    Raises:
        FewbitsError: as `encodings.calibrate_model`.
    """
    from ..passes.quantize.quantize import Quantize
    from ..passes.rewrite import Rewriter, layer_of, operator_of
    from .driver import compress_until

    state, module, pass_ = compress_until(model, options, calibration, "quantize", progress)
    assert isinstance(pass_, Quantize)
    data = state.context.calibration
    progress.phase("observe")
    plan, parameters = pass_.plan(module, state.context)
    assert data is not None  # `plan` has refused to go on without
    data.progress = None
    study = _Study(module, plan, parameters, pass_, data)
    values = Rewriter(module).values
    operators = {var.name: operator_of(value) for var, value in values.items()}
    progress.phase("quantize one layer at a time")
    entries = []
    for done, anchor in enumerate(plan.anchors, 1):
        alone = study.snr({anchor})
        without = study.snr(set(plan.anchors) - {anchor})
        operator = (operators[anchor] or "").removeprefix("relax.").removeprefix("nn.")
        name = layer_of(anchor, operators)
        entries.append(Entry(name, operator, alone, without, study.weights(anchor)))
        progress.samples(done, len(plan.anchors))
    entries.sort(key=lambda entry: (entry.alone_db, entry.name))
    everything = study.snr(set(plan.anchors))
    return Sensitivity(tuple(entries), everything, data.total or 0)


class _Study:
    """Measures outputs of partly quantized modules against the float module's."""

    def __init__(
        self,
        module: ir.IRModule,
        plan: Plan,
        parameters: dict[str, AffineParameters],
        quantize: Quantize,
        data: Calibration,
    ) -> None:
        from ..passes.rewrite import Rewriter

        self.module = module
        self.plan = plan
        self.parameters = parameters
        self.quantize = quantize
        self.data = data
        self.rewriter = Rewriter(module)
        self.calls = {var.name: value for var, value in self.rewriter.bindings}
        self.reference = self._outputs(module)

    def _outputs(self, module: ir.IRModule) -> list[np.ndarray]:
        from ..ops.evaluate import output_names

        names = output_names(module)
        pieces = [[v[name] for name in names] for v in self.data.run(module, [])]
        return [np.concatenate(parts).astype(np.float64) for parts in zip(*pieces, strict=True)]

    def weights(self, anchor: str) -> int:
        """Number of weights of a layer."""
        from tvm import ir

        constants = [a for a in self.calls[anchor].args if isinstance(a, ir.GenericConst)]
        return sum(int(np.prod(c.value.shape)) for c in constants)

    def snr(self, anchors: set[str]) -> float:
        """SNR in dB of all outputs with these layers quantized: inputs, weights and results."""
        from ..passes.rewrite import variables

        quantized = set()
        for anchor in anchors:
            operands = [v.name for v in variables(self.calls[anchor])]
            quantized |= {self.plan.anchors[anchor], *operands}
        part = dataclasses.replace(
            self.plan,
            quantized=[name for name in self.plan.quantized if name in quantized],
            anchors={a: last for a, last in self.plan.anchors.items() if a in anchors},
        )
        got = self._outputs(self.quantize.insert(self.module, part, self.parameters))
        noise = sum(float(((g - w) ** 2).sum()) for g, w in zip(got, self.reference, strict=True))
        signal = sum(float((w**2).sum()) for w in self.reference)
        if noise == 0 or signal == 0:
            return 200.0
        return round(float(10 * np.log10(signal / noise)), 2)
