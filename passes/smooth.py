"""Smoothing migration, SmoothQuant (Xiao et al. 2022, spec 4): outliers move into the weights.

Activations of transformers have a few channels that are far larger than the others, so one scale
for all of them wastes most codes. Weights have no such channels. ``X / s`` and ``s W`` have the
same product, and a factor s per channel that is large where activations are makes both easy.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar, Literal

import numpy as np
from tvm import ir

from ..errors import FewbitsError
from ..formats.parse import parse_format
from .activations.checks import refuse_compressed
from .base import Pass, PassContext, register_pass
from .channel_statistics import ChannelStatistics, observe_inputs
from .layers import select_layers
from .rewrite import Rewriter
from .smoothing.edits import Edits
from .smoothing.factors import (
    GRID,
    Arithmetic,
    Trial,
    input_maxima,
    on_inputs,
    smoothing_factors,
    tied_maxima,
)
from .smoothing.sites import Site, find_sites

Fold = Literal["norm", "previous", "multiply"]


@register_pass
@dataclasses.dataclass(frozen=True)
class Smooth(Pass):
    """Divide activations by a factor per channel, multiply the weights that read them.

    The float model computes the same. Where the division goes is decided site by site: the first
    of `fold` that is possible; a site where none is stays as it is.

    Attributes:
        alpha: how much of the range moves, 0 to 1; ``search``: for each site the one of 0, 0.05
            ... 1, or no smoothing at all, with the least squared error of its quantized products
            on the calibration data.
        fold: ``norm``: scale and shift of the normalization before. ``previous``: output channels
            of the layer before, through operators that pass a factor on. ``multiply``: an explicit
            product with 1 / s; the only way where others read the activation too (a residual), or
            after a GELU.
        targets: layers whose inputs are smoothed, all if empty; a site is taken when one of its
            layers is named.
        ignore: layers whose inputs are not; one of them keeps its whole site.
        format: of activations, for the search.
        weight_format: of weights (a scale per output channel), for the search.
        strategy: of activations, for the search: ``token`` or (static) ``tensor``.
        samples: rows of each activation that the search uses; convolutions take a 32nd as many
            whole samples.
    """

    name: ClassVar[str] = "smooth"

    alpha: float | Literal["search"] = 0.5
    fold: tuple[Fold, ...] = ("norm", "previous")
    targets: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()
    format: str = "int8-narrow"
    weight_format: str = "int8-narrow"
    strategy: Literal["token", "tensor"] = "token"
    samples: int = 512

    def __post_init__(self) -> None:
        if self.alpha != "search" and not 0.0 <= self.alpha <= 1.0:
            raise FewbitsError(
                "unknown-option",
                f"pass smooth, option alpha: {self.alpha} is not between 0 and 1",
                hint="0.5 moves half of the range; alpha: search finds one for each layer",
            )
        if self.samples < 1:
            raise FewbitsError("unknown-option", "pass smooth, option samples: needs one at least")

    def apply(self, module: ir.IRModule, context: PassContext) -> ir.IRModule:
        """A module that computes the same in float32.

        Raises:
            FewbitsError: ``no-calibration``; ``already-compressed`` where weights or activations
                are in few bits already; ``unknown-layer``; ``unknown-format``.
        """
        arithmetic = Arithmetic(
            parse_format(self.format), parse_format(self.weight_format), self.strategy == "token"
        )
        sites = self._chosen(module, context)
        if not sites:
            return module
        if context.calibration is None:
            raise FewbitsError(
                "no-calibration",
                "smoothing needs the ranges of activations on sample inputs",
                hint="give --calibration data.npz (keys are input names)",
            )
        keep = {1: self.samples, 2: -(-self.samples // 32), 3: -(-self.samples // 32)}
        readers = [site.layers[0] for site in sites]
        seen = observe_inputs(
            module, readers, context.calibration,
            keep if self.alpha == "search" else None, context.seed,
        )  # fmt: skip
        edits = Edits(Rewriter(module))
        for site in sites:
            self._smooth(site, seen[site.name], edits, arithmetic, context)
        return edits.finish()

    def _chosen(self, module: ir.IRModule, context: PassContext) -> list[Site]:
        """The sites that are asked for and where the division can go somewhere."""
        sites = find_sites(module)
        layers = [layer for site in sites for layer in site.layers]
        refuse_compressed(module, layers, "put smooth before the passes that quantize")
        wanted = set(select_layers(layers, self.targets, (), self.name))
        kept = set(layers) - set(select_layers(layers, (), self.ignore, self.name))
        chosen = []
        for site in sites:
            if not wanted.intersection(site.layers) or kept.intersection(site.layers):
                continue
            if self._place(site) is None:
                message = "left alone: nothing before it can take the division"
                context.note(self.name, site.layers[0].name, message)
                continue
            chosen.append(site)
        return chosen

    def _place(self, site: Site) -> Fold | None:
        """Where the division goes."""
        for fold in self.fold:
            if fold == "multiply" or (site.producer is not None and site.producer.kind == fold):
                return fold
        return None

    def _smooth(
        self,
        site: Site,
        seen: ChannelStatistics,
        edits: Edits,
        arithmetic: Arithmetic,
        context: PassContext,
    ) -> None:
        fold = self._place(site)
        labels, count = np.arange(site.channels), site.channels
        if fold != "multiply" and site.producer is not None:
            labels, count = site.channel_labels, site.producer.channels
        weights = [edits.array(layer.var, 1) for layer in site.layers]
        weight_maxima = np.max(
            [input_maxima(layer, w) for layer, w in zip(site.layers, weights, strict=True)], axis=0
        )
        activations = tied_maxima(seen.maxima, labels, count)
        heaviest = tied_maxima(weight_maxima, labels, count)

        def factors(alpha: float) -> np.ndarray:
            return smoothing_factors(activations, heaviest, alpha)

        if self.alpha == "search":
            assert seen.items is not None
            trial = Trial(site.layers, weights, seen.items, seen.maxima, arithmetic)
            plain = trial.error(np.ones(site.channels))
            errors = [trial.error(factors(alpha)[labels]) for alpha in GRID]
            best = int(np.argmin(errors))
            if errors[best] >= plain:
                message = "left alone: smoothing does not lower the error"
                context.note(self.name, site.layers[0].name, message, alpha=None)
                return
            alpha, gain = GRID[best], errors[best] / plain
            data = {"alpha": alpha, "fold": fold, "error_ratio": gain}
            text = f"alpha {alpha}, {fold}, squared error x {gain:.3g}"
        else:
            alpha = self.alpha
            data, text = {"alpha": alpha, "fold": fold}, f"alpha {alpha}, {fold}"
        divide(site, factors(alpha), edits, explicitly=fold == "multiply")
        context.note(self.name, site.layers[0].name, text, **data)


def divide(site: Site, factors: np.ndarray, edits: Edits, explicitly: bool) -> None:
    """Divide a site's activation by factors and multiply its readers' weights.

    Args:
        site: where.
        factors: per channel of the producer, or of the activation where `explicitly`.
        edits: records the changes.
        explicitly: by a product of its own, not by folding.
    """
    if explicitly or site.producer is None:
        inputs = factors
        shape = (-1, *[1] * (-1 - site.axis))
        edits.multiply_input(site.input, (1.0 / factors).reshape(shape))
    else:
        inputs = factors[site.channel_labels]
        for division in site.producer.divisions:
            edits.scale(division.var, division.place, 1.0 / factors[division.labels])
    for layer in site.layers:
        edits.scale(layer.var, 1, on_inputs(layer, inputs, edits.array(layer.var, 1)))
