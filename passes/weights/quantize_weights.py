"""The `quantize_weights` pass: weights in few bits, activations untouched."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from tvm import ir

from ...formats.scales import ScaleStorage
from ..base import Pass, PassContext, register_pass
from ..layers import Layer
from ..solvers.options import SolverName
from .engine import Task, compress_layers
from .options import WeightOptions
from .selection import layers_to_compress, select_overridden


@register_pass
@dataclasses.dataclass(frozen=True)
class QuantizeWeights(Pass):
    """Weights of matrix products and convolutions in few bits.

    Attributes:
        format, num_bits, type, strategy, group_size, solver, scale_method, scale_storage,
            symmetric, sparsity, activation_order, damping, compensate: see `WeightOptions`;
            `format` is int4 where none is given.
        embeddings: tables that are looked up in, too.
        targets: the layers to compress; all if empty.
        ignore: layers that stay as they are.
        overrides: for the layers that an entry selects, other options. Later entries win.
    """

    name: ClassVar[str] = "quantize_weights"

    format: str | None = None
    num_bits: int | None = None
    type: str | None = None
    strategy: str = "group"
    group_size: int = 128
    solver: SolverName = "rtn"
    scale_method: Literal["absmax", "mse"] | None = None
    scale_storage: ScaleStorage = "float16"
    symmetric: bool = True
    sparsity: float | str | None = None
    activation_order: bool = False
    damping: float = 0.01
    compensate: bool = False
    embeddings: bool = False
    targets: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()
    overrides: Mapping[str, Mapping[str, Any]] | None = None

    def apply(self, module: ir.IRModule, context: PassContext) -> ir.IRModule:
        """The module with compressed weights; a note says what became of each layer.

        Raises:
            FewbitsError: ``no-calibration``; ``unknown-layer``, ``unknown-option``; whatever makes
                a layer's format, granularity and shape impossible together.
        """
        tasks = [
            Task(layer, options.solver_options(), compensate=options.compensate)
            for layer, options in self.plan(module)
        ]
        return compress_layers(self.name, module, tasks, context)

    def plan(self, module: ir.IRModule) -> list[tuple[Layer, WeightOptions]]:
        """The layers to compress, in program order, and how.

        Raises:
            FewbitsError: ``unknown-layer``, ``unknown-option``.
        """
        names = [field.name for field in dataclasses.fields(WeightOptions)]
        base = WeightOptions(**{name: getattr(self, name) for name in names})
        layers = layers_to_compress(module, self, self.name)
        chosen = {layer.name: base for layer in layers}
        for layer, pattern, changes in select_overridden(layers, self.overrides, self.name):
            chosen[layer.name] = chosen[layer.name].changed(changes, pattern)
        return [(layer, chosen[layer.name]) for layer in layers]
