"""The `quantize` pass: post-training quantization of weights and activations into QDQ form."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import numpy as np
from tvm import ir

from ...errors import FewbitsError
from ...formats.affine import AffineFormat, AffineParameters
from ..base import Pass, PassContext, register_pass
from ..observers import Observer, make_observer
from ..rewrite import Rewriter, operator_of
from .insert import Grids, insert_qdq, power_of_two
from .masks import Unmasked, masked_values
from .operators import ANCHORS
from .plan import Plan, make_plan


@register_pass
@dataclasses.dataclass(frozen=True)
class Quantize(Pass):
    """int8 weights and activations, ranges from calibration data.

    Attributes:
        activation_observer: minmax, moving, percentile, mse or entropy.
        percentile: for the percentile observer, the share of values inside the range, in percent.
        weight_observer: minmax or mse.
        strategy: ``channel`` for one weight scale per output channel, ``tensor`` for one in all.
        symmetric: zero points of activations are 0.
        narrow: activations never have the most negative code.
        weight_symmetric: zero points of weights are 0; other weights run on few targets.
        activation_bits: 8, or 16 as a study: no target computes with 16.
        scale: ``float``, or ``power-of-two`` for hardware that only shifts.
        ignore: layers that stay float, by name, wildcard, ``re:`` pattern or operator.
    """

    name: ClassVar[str] = "quantize"
    keeps_symbols: ClassVar[bool] = False

    activation_observer: str = "minmax"
    percentile: float = 99.99
    weight_observer: str = "minmax"
    strategy: str = "channel"
    symmetric: bool = False
    narrow: bool = False
    weight_symmetric: bool = True
    activation_bits: int = 8
    scale: str = "float"
    ignore: tuple[str, ...] = ()

    def apply(self, module: ir.IRModule, context: PassContext) -> ir.IRModule:
        """The module in QDQ form; a module that already is in QDQ form keeps its own scales.

        Raises:
            FewbitsError: ``no-calibration``, ``unknown-option``.
        """
        self._check()
        if is_qdq(module):
            if self.ignore:
                raise FewbitsError(
                    "unknown-option",
                    "the model is quantized already: none of its layers can be kept float",
                    where="ignore",
                    hint="quantize the float model instead, or leave --keep-float out",
                )
            context.note(self.name, None, "the model brings its own scales; they are kept")
            return module
        context.reference = module
        plan, parameters = self.plan(module, context)
        for layer, reason in plan.floats.items():
            context.note(self.name, layer, f"stays float: {reason}")
        return self.insert(module, plan, parameters)

    def plan(
        self, module: ir.IRModule, context: PassContext
    ) -> tuple[Plan, dict[str, AffineParameters]]:
        """What would be quantized, with scale and zero point by name."""
        self._check()
        plan = make_plan(module, self.ignore)
        return plan, self._parameters(module, plan, context)

    def insert(
        self, module: ir.IRModule, plan: Plan, parameters: dict[str, AffineParameters]
    ) -> ir.IRModule:
        """Carry out a plan, or a part of it."""
        weights = AffineFormat(8, self.weight_symmetric, narrow=self.weight_symmetric)
        grids = Grids(
            weights,
            self.grid(),
            per_channel=self.strategy == "channel",
            weight_observer=self.weight_observer,
            power_of_two=self.scale == "power-of-two",
        )
        return insert_qdq(module, plan, parameters, grids)

    def grid(self) -> AffineFormat:
        """The activations' grid."""
        return AffineFormat(self.activation_bits, symmetric=self.symmetric, narrow=self.narrow)

    def _check(self) -> None:
        choices = {
            "strategy": (self.strategy, ("channel", "tensor")),
            "weight_observer": (self.weight_observer, ("minmax", "mse")),
            "scale": (self.scale, ("float", "power-of-two")),
            "activation_bits": (self.activation_bits, (8, 16)),
        }
        for option, (value, allowed) in choices.items():
            if value not in allowed:
                raise FewbitsError(
                    "unknown-option",
                    f"quantize has no {option} {value!r}",
                    hint=f"choose one of: {', '.join(map(str, allowed))}",
                )
        if not 50.0 < self.percentile <= 100.0:
            raise FewbitsError(
                "unknown-option",
                f"percentile {self.percentile} is not between 50 and 100",
                hint="99.99 is a usual choice",
            )
        make_observer(self.activation_observer)

    def _parameters(
        self, module: ir.IRModule, plan: Plan, context: PassContext
    ) -> dict[str, AffineParameters]:
        """Scale and zero point of every value to quantize."""
        grid = self.grid()
        observed = [
            name
            for group, names in plan.observed.items()
            if group not in plan.fixed
            for name in names
        ]
        if observed and context.calibration is None:
            raise FewbitsError(
                "no-calibration",
                "quantizing activations needs sample inputs",
                hint="give --calibration data.npz (keys are input names), a folder of .npy/.npz, "
                "or --calibration random to try things out",
            )
        observers = {}
        masked = masked_values(module)

        def make(name: str) -> Observer:
            observer = make_observer(self.activation_observer, self.percentile)
            return Unmasked(observer) if name in masked else observer

        if context.calibration is not None:
            observers = context.calibration.observe(module, observed, make)
        chosen: dict[str, AffineParameters] = {}
        for group, names in plan.observed.items():
            if group in plan.fixed:
                low, high = plan.fixed[group]
            else:
                ranges = [observers[name].range(grid) for name in names]
                low, high = min(r[0] for r in ranges), max(r[1] for r in ranges)
            chosen[group] = self._chosen(grid, low, high)
        return {name: chosen[plan.group[name]] for name in plan.quantized}

    def _chosen(self, grid: AffineFormat, low: float, high: float) -> AffineParameters:
        found = grid.parameters(low, high)
        if self.scale == "float":
            return found
        scale = float(power_of_two(np.array(found.scale)))
        if self.symmetric:
            return AffineParameters(scale, 0)
        zero = round(grid.minimum - min(low, 0.0) / scale)
        return AffineParameters(scale, max(grid.minimum, min(zero, grid.maximum)))


def is_qdq(module: ir.IRModule) -> bool:
    """Whether some activation of the module is quantized already."""
    return any(operator_of(value) == "relax.quantize" for _, value in Rewriter(module).bindings)


def quantizable_layers(module: ir.IRModule) -> list[str]:
    """Names of the multiply-accumulate layers, in order: what sensitivity analysis ranks."""
    return [var.name for var, value in Rewriter(module).bindings if operator_of(value) in ANCHORS]
